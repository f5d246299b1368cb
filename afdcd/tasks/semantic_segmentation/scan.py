"""Check the images and label maps of a data set, all or a sample."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from afdcd.data.datasets import Dataset
from afdcd.data.images import read_image
from afdcd.data.labels import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.listing import spread
from afdcd.data.spec import Record
from afdcd.data.targets import size_problem
from afdcd.utils.findings import Report
from afdcd.utils.problems import SHOWN, first_few


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
    """

    files: int
    problems: list[str]
    pixels: np.ndarray
    images: np.ndarray
    ignored: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)

    def shares(self) -> np.ndarray:
        """float64 [K]: each class's share of the labelled pixels; 0 without any."""
        return self.pixels / max(int(self.pixels.sum()), 1)


# A class with fewer of the labelled pixels than this share is rare.
RARE = 1e-4
# An image whose values differ by no more than this shows next to nothing, as 12 of 16 bits may.
FLAT_RANGE = 16


def scan_files(
    dataset: Dataset, *, limit: int | None = None, workers: int = 4, progress: bool = False
) -> Scan:
    """Open image and label map of records, in parallel.

    Args:
        dataset: whose files to open.
        limit: number of records, evenly spread; None for all.
        workers: threads.
        progress: whether to show a bar on the terminal.
    """
    records = spread(dataset.records, limit)
    classes = len(dataset.spec.classes)
    result = Scan(len(records), [], np.zeros(classes, np.int64), np.zeros(classes, np.int64))
    with ThreadPoolExecutor(workers) as pool:
        opened = pool.map(lambda record: _open(record, dataset.label_map), records)
        bar = tqdm(opened, total=len(records), desc=dataset.spec.name, disable=not progress)
        for record, item in zip(records, bar, strict=True):
            if isinstance(item, str):
                result.problems.append(item)
                continue
            size, counts, contrast = item
            result.sizes[size] = result.sizes.get(size, 0) + 1
            result.pixels += counts[:classes]
            result.images += counts[:classes] > 0
            result.ignored += int(counts[IGNORE])
            if not counts[:classes].any():
                result.unlabelled.append(record["sem_seg_file_name"])
            if contrast <= FLAT_RANGE:
                result.flat.append(record["file_name"])
    return result


def _open(record: Record, label_map: LabelMap) -> str | tuple[tuple[int, int], np.ndarray, int]:
    """A problem, or the size, the pixels of each label, and the range of the image's values."""
    try:
        labels = read_labels(record["sem_seg_file_name"], label_map)
        image = read_image(record["file_name"], record.get("window"))
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
    )


def judge_files(dataset: Dataset, *, limit: int | None, training: bool, report: Report) -> None:
    """Open files and judge what they hold: see `afdcd.tasks.Task.check_files`."""
    scan = scan_files(dataset, limit=limit, progress=sys.stderr.isatty())
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
        add = report.fix if len(scan.unlabelled) > usable / 10 else report.note
        add("unlabelled", f"{text}, e.g. {scan.unlabelled[0]}")
    if scan.flat:
        text = f"{name}: {len(scan.flat)} of {usable} images show one colour, e.g. {scan.flat[0]}"
        add = report.fix if len(scan.flat) > usable / 10 else report.note
        add("flat-image", f"{text}. 16-bit images need images: {{window: ...}} in a description")
    everything = scan.files == total
    absent = [dataset.spec.classes[k] for k in np.flatnonzero(scan.images == 0)]
    if absent and scan.pixels.any():
        scope = "" if everything else f" (in a sample of {scan.files}; --full reads all)"
        text = f"{name} never shows {_names(absent)}{scope}"
        # The classes of a published data set are known to be right, and using a part is common.
        published = dataset.spec.expected is not None
        add = report.fix if training and everything and not published else report.note
        add("absent-class", text)
    rare = [
        f"{dataset.spec.classes[k]} ({100 * shares[k]:.4f} %)"
        for k in np.flatnonzero((scan.images > 0) & (shares < RARE))
    ]
    if rare:
        report.note("rare-class", f"{name}: less than 0.01 % of the pixels: {_names(rare)}")
    report.facts[f"sizes of {name}"] = {
        f"{h}x{w}": n for (h, w), n in sorted(scan.sizes.items(), key=lambda i: -i[1])[:SHOWN]
    }


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
