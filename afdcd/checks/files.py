"""Files, labels and classes of the data sets."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from afdcd.checks.findings import Report
from afdcd.checks.preflight import class_problems, find_datasets, mixed_label_problems
from afdcd.checks.scan import Scan, scan_files
from afdcd.data import Dataset
from afdcd.engine.runtime import Runtime
from afdcd.utils.problems import first_few

# A class with fewer of the labelled pixels than this share is rare.
RARE = 1e-4
SHOWN = 5


def find_all(cfg: Any, runtime: Runtime, report: Report) -> tuple[list[Dataset], list[Dataset]]:
    """Training and test sets whose files were found."""
    found = []
    for key in ("TRAIN", "TEST"):
        problems: list[str] = []
        found.append(
            find_datasets(cfg.DATASETS[key], f"DATASETS.{key}", problems, runtime.find_dataset)
        )
        report.fix("dataset", *problems)
    train, test = found
    report.fix("classes", *dict.fromkeys(class_problems(cfg, [*train, *test])))
    report.fix("incomplete", *(text for d in [*train, *test] if (text := d.count_problem())))
    report.note("size", *(text for d in [*train, *test] if (text := d.size_problem())))
    report.fix("dataset", *mixed_label_problems(train))
    for one in train:
        for other in test:
            check_same_classes(one, other, report)
            shared = {r["file_name"] for r in one.records} & {r["file_name"] for r in other.records}
            if shared:
                report.fix(
                    "leak",
                    f"{one.spec.name} and {other.spec.name} share {len(shared)} images, e.g. "
                    f"{min(shared)}: scores would be of images trained on",
                )
    return train, test


def check_same_classes(one: Dataset, other: Dataset, report: Report) -> None:
    """Whether two data sets name the same classes in the same order."""
    first, second = one.spec.classes, other.spec.classes
    report.fix("class-order", *class_order_problems(first, second, one.spec.name, other.spec.name))


def class_order_problems(
    first: tuple[str, ...], second: tuple[str, ...], one: str, other: str
) -> list[str]:
    """In what two lists of classes differ; nothing where they agree."""
    if first == second:
        return []
    if len(first) != len(second):
        return [f"{one} has {len(first)} classes and {other} {len(second)}"]
    differing = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    examples = "; ".join(f"{k} is {first[k]} and {second[k]}" for k in differing[:3])
    kind = "order" if sorted(first) == sorted(second) else "names"
    return [
        f"the classes of {one} and {other} differ in {kind}: {examples}. Logits are compared "
        "channel by channel: bring both to one order"
    ]


def scan_all(
    cfg: Any, train: list[Dataset], test: list[Dataset], *, limit: int | None, report: Report
) -> None:
    """Open files of every data set and judge what they hold."""
    for datasets, training in ((train, True), (test, False)):
        for dataset in datasets:
            scan = scan_files(dataset, limit=limit, progress=sys.stderr.isatty())
            _judge(cfg, dataset, scan, training=training, report=report)


def _judge(cfg: Any, dataset: Dataset, scan: Scan, *, training: bool, report: Report) -> None:
    name, total = dataset.spec.name, len(dataset.records)
    shares = scan.shares()
    report.facts[f"files of {name}"] = {
        "opened": scan.files,
        "of": total,
        "unusable": len(scan.problems),
        "ignored pixels": _share(scan.ignored, scan.ignored + int(scan.pixels.sum())),
        "class shares": dict(zip(dataset.spec.classes, shares.tolist(), strict=True)),
    }
    report.fix("file", *first_few(scan.problems, of=name))
    usable = scan.files - len(scan.problems)
    if not usable:
        return
    if scan.unlabelled:
        text = f"{name}: {len(scan.unlabelled)} of {usable} label maps show no class at all"
        say = report.fix if len(scan.unlabelled) > usable / 10 else report.note
        say("unlabelled", f"{text}, e.g. {scan.unlabelled[0]}")
    if scan.flat:
        text = f"{name}: {len(scan.flat)} of {usable} images show one colour, e.g. {scan.flat[0]}"
        say = report.fix if len(scan.flat) > usable / 10 else report.note
        say("flat-image", f"{text}. 16-bit images need images: {{window: ...}} in a description")
    everything = scan.files == total
    absent = [dataset.spec.classes[k] for k in np.flatnonzero(scan.images == 0)]
    if absent and scan.pixels.any():
        seen = "" if everything else f" (in a sample of {scan.files}; --full reads all)"
        text = f"{name} never shows {_names(absent)}{seen}"
        # The 182-value reading of COCO-Stuff has 11 classes that never occur.
        expected = len(absent) == 11 and len(dataset.spec.classes) == 182
        say = report.fix if training and everything and not expected else report.note
        say("absent-class", text)
    rare = [
        f"{dataset.spec.classes[k]} ({100 * shares[k]:.4f} %)"
        for k in np.flatnonzero((scan.images > 0) & (shares < RARE))
    ]
    if rare:
        report.note("rare-class", f"{name}: less than 0.01 % of the pixels: {_names(rare)}")
    if training:
        _judge_sizes(cfg, name, scan, usable, report)


def _judge_sizes(cfg: Any, name: str, scan: Scan, usable: int, report: Report) -> None:
    (height, width), (_, largest) = cfg.INPUT.SCALE_CROP.SIZE, cfg.INPUT.SCALE_CROP.SCALES
    short = cfg.INPUT.MIN_SIZE_TRAIN[0]
    always = sometimes = 0
    for (h, w), count in scan.sizes.items():
        factor = short / min(h, w) if short else 1.0
        fill = min(h * factor / height, w * factor / width)
        always += count * (fill * largest < 1)
        sometimes += count * (fill < 1)
    report.facts[f"sizes of {name}"] = {
        f"{h}x{w}": n for (h, w), n in sorted(scan.sizes.items(), key=lambda i: -i[1])[:SHOWN]
    }
    crop = f"the crop INPUT.SCALE_CROP.SIZE {height}x{width}"
    if always > usable / 2:
        report.fix(
            "small-images",
            f"{name}: {always} of {usable} images are smaller than {crop} even at the largest "
            f"scale {largest:g}: they are always padded. Use a smaller crop or larger SCALES",
        )
    elif sometimes:
        report.note(
            "small-images",
            f"{name}: {sometimes} of {usable} images are smaller than {crop} at scale 1, and "
            "padded there",
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
