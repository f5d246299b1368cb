"""Check the images and label maps of a data set, all or a sample."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from afdcd.data.datasets import Dataset
from afdcd.data.images import examine_image
from afdcd.data.labels import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.listing import spread
from afdcd.data.spec import Record
from afdcd.data.targets import size_problem
from afdcd.utils.findings import Report
from afdcd.utils.problems import SHOWN, first_few
from afdcd.utils.progress import progress


@dataclass
class Scan:
    """What was found in some files of a data set.

    Attributes:
        files: pairs that were opened.
        problems: a sentence for each pair that can't be used.
        pixels: int64 [K]: pixels of each class.
        images: int64 [K]: label maps that show each class.
        ignored: pixels that don't count.
        sizes: distinct (height, width), with the number of images.
        unlabelled: label maps without any class.
        flat: images of one colour, or nearly so.
        damaged: a sentence for each image that can be read in part only.
    """

    files: int
    problems: list[str]
    pixels: np.ndarray
    images: np.ndarray
    ignored: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def shares(self) -> np.ndarray:
        """float64 [K]: each class's share of the labelled pixels; 0 without any."""
        return self.pixels / max(int(self.pixels.sum()), 1)


# A class with fewer of the labelled pixels than this share is rare.
RARE = 1e-4
# An image whose values differ by no more than this shows next to nothing, as 12 of 16 bits may.
FLAT_RANGE = 16


def scan_files(dataset: Dataset, *, limit: int | None = None, workers: int = 4) -> Scan:
    """Open image and label map of records, in parallel, with a bar on terminals.

    Args:
        dataset: whose files to open.
        limit: number of records, evenly spread; None for all.
        workers: threads.
    """
    records = spread(dataset.records, limit)
    classes = len(dataset.spec.classes)
    result = Scan(len(records), [], np.zeros(classes, np.int64), np.zeros(classes, np.int64))
    with ThreadPoolExecutor(workers) as pool:
        opened = pool.map(lambda record: _open(record, dataset.label_map), records)
        bar = progress(opened, f"checking {dataset.spec.name}", total=len(records))
        for record, item in zip(records, bar, strict=True):
            if isinstance(item, str):
                result.problems.append(item)
                continue
            size, counts, contrast, damage = item
            result.sizes[size] = result.sizes.get(size, 0) + 1
            result.pixels += counts[:classes]
            result.images += counts[:classes] > 0
            result.ignored += int(counts[IGNORE])
            if not counts[:classes].any():
                result.unlabelled.append(record["sem_seg_file_name"])
            if contrast <= FLAT_RANGE:
                result.flat.append(record["file_name"])
            if damage:
                result.damaged.append(damage)
    return result


def _open(
    record: Record, label_map: LabelMap
) -> str | tuple[tuple[int, int], np.ndarray, int, str]:
    """A problem, or the size, the pixels of each label, the image's range of values, its damage."""
    try:
        labels = read_labels(record["sem_seg_file_name"], label_map)
        image, damage = examine_image(record["file_name"], record.get("window"))
    except DataError as error:
        return str(error)
    except Exception as error:  # one file must not prevent the check of the others
        return f"{record['file_name']}: {type(error).__name__}: {error}"
    if problem := size_problem(record, image, labels):
        return problem
    sample = image[:: max(1, len(image) // 64), :: max(1, image.shape[1] // 64)]
    return (
        (image.shape[0], image.shape[1]),
        np.bincount(labels.ravel(), minlength=256),
        int(sample.max()) - int(sample.min()),
        damage,
    )


def judge_files(dataset: Dataset, *, limit: int | None, report: Report) -> Scan:
    """Open files and judge what they hold, but for the classes: see `judge_classes`."""
    scan = scan_files(dataset, limit=limit)
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
    # Those of a published data set are as they are.
    say = report.fix if dataset.spec.expected is None else report.note
    say("damaged-image", *first_few(scan.damaged, of=name))
    usable = scan.files - len(scan.problems)
    if not usable:
        return scan
    if scan.unlabelled:
        text = f"{name}: {len(scan.unlabelled)} of {usable} label maps show no class at all"
        nothing = len(scan.unlabelled) == usable
        hint = f": there is nothing to learn{ignored_hint([(dataset, scan)])}" if nothing else ""
        say = report.fix if len(scan.unlabelled) > usable / 10 else report.note
        advice = "" if nothing else ": leave such images out of the listing, or label them"
        say("unlabelled", f"{text}, e.g. {scan.unlabelled[0]}{hint}{advice}")
    if scan.flat:
        text = f"{name}: {len(scan.flat)} of {usable} images show one colour, e.g. {scan.flat[0]}"
        say = report.fix if len(scan.flat) > usable / 10 else report.note
        say("flat-image", f"{text}. 16-bit images need images: {{window: ...}} in a description")
    rare = [
        f"{dataset.spec.classes[k]} ({100 * shares[k]:.4f} %)"
        for k in np.flatnonzero((scan.images > 0) & (shares < RARE))
    ]
    if rare:
        report.note("rare-class", f"{name}: less than 0.01 % of the pixels: {_names(rare)}")
    report.facts[f"sizes of {name}"] = {
        f"{h}x{w}": n for (h, w), n in sorted(scan.sizes.items(), key=lambda i: -i[1])[:SHOWN]
    }
    return scan


def judge_classes(
    parts: Sequence[tuple[Dataset, Scan]], report: Report, *, training: bool = True
) -> None:
    """Judge which classes data sets show, all together, and whether anything can be learnt.

    Args:
        parts: data sets of the same classes, with what was found in their files.
        report: takes what is found.
        training: whether they are trained on.
    """
    pixels = sum(scan.pixels for _, scan in parts)
    opened = sum(scan.files for _, scan in parts)
    if not opened or not np.any(pixels):
        return  # nothing is labelled, or usable: said of each data set
    classes = parts[0][0].spec.classes
    name = " and ".join(dataset.spec.name for dataset, _ in parts)
    everything = opened == sum(len(dataset.records) for dataset, _ in parts)
    absent = [classes[k] for k in np.flatnonzero(pixels == 0)]
    # Of a published data set the classes are known to be right, and parts of one are common.
    published = all(dataset.spec.expected is not None for dataset, _ in parts)
    hint = "" if published else ignored_hint(parts)
    if training and len(classes) - len(absent) == 1:
        only = classes[int(np.argmax(pixels))]
        seen = "" if everything else f" (in a sample of {opened} files)"
        report.fix(
            "one-class",
            f"{name} shows {only} alone, in all pixels that count{seen}, so that there is nothing "
            f"to learn: label two classes at least, and look at mapping and ignore{hint}",
        )
    elif absent:
        seen = "" if everything else f" (in a sample of {opened}; --full reads all)"
        say = report.fix if training and everything and not published else report.note
        say("absent-class", f"{name} never shows {_names(absent)}{seen}{hint}")


def ignored_hint(parts: Sequence[tuple[Dataset, Scan]]) -> str:
    """That 255 doesn't count by default, where it may be meant to; else empty."""
    by_default = [
        scan
        for dataset, scan in parts
        if dataset.label_map.encoding == "index"
        and dataset.label_map.ignored == {IGNORE}
        and scan.ignored
    ]
    if not by_default:
        return ""
    ignored = sum(scan.ignored for scan in by_default)
    whole = ignored + sum(int(scan.pixels.sum()) for scan in by_default)
    return (
        f". {100 * _share(ignored, whole):.2f} % of the pixels hold 255, which doesn't count by "
        "default: if it is a class, map it (labels.mapping {255: CLASS} in the description; "
        "register_dataset.py --map 255=CLASS)"
    )


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
