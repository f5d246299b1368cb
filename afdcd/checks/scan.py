"""Reading a data set's files, all or a sample, and what is noteworthy of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from afdcd.data.datasets import Dataset
from afdcd.data.images import read_image
from afdcd.data.labels import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.spec import Record


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


# A picture whose values differ by no more than this shows next to nothing: 12 of 16 bits, say.
FLAT_RANGE = 16


def spread(records: Sequence[Record], limit: int | None) -> list[Record]:
    """At most ``limit`` records, evenly spread; all for None."""
    if limit is None or len(records) <= limit:
        return list(records)
    return [records[int(k * len(records) / limit)] for k in range(limit)]


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
        found = pool.map(lambda record: _open(record, dataset.label_map), records)
        bar = tqdm(found, total=len(records), desc=dataset.spec.name, disable=not progress)
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
    except Exception as error:  # a file must not stop the others from being looked at
        return f"{record['file_name']}: {type(error).__name__}: {error}"
    if image.shape[:2] != labels.shape:
        return size_problem(record, image, labels)
    few = image[:: max(1, len(image) // 64), :: max(1, image.shape[1] // 64)]
    return (
        (image.shape[0], image.shape[1]),
        np.bincount(labels.ravel(), minlength=256),
        int(few.max()) - int(few.min()),
    )


def size_problem(record: dict[str, Any], image: np.ndarray, labels: np.ndarray) -> str:
    """That an image and its label map differ in size."""
    return (
        f"{record['file_name']} is {image.shape[0]}x{image.shape[1]} but its label map "
        f"{record['sem_seg_file_name']} is {labels.shape[0]}x{labels.shape[1]}"
    )
