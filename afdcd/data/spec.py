"""What a data set is, before its files are looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afdcd.data.labels import IGNORE, LabelMap

# One image and its label map, in Detectron2's form; see `afdcd.data.pairs.pair_records`.
Record = dict[str, Any]
# Red, green and blue, 0 to 255.
Color = tuple[int, int, int]


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before its files are looked at.

    Attributes:
        name: as in ``DATASETS.TRAIN``, e.g. ``camvid_train``.
        classes: K names in label order.
        colors: K colours (red, green, blue) for pictures.
        load: from the root folder to the records, with the label map of their label files. Raises
            DataError where the files aren't there, saying what was expected.
        ignore_label: training label of the pixels that don't count.
        expected: number of images that the owners publish; None where it isn't known.
        official: label map of the owners' own files, whose values their test servers expect.
        size: (height, width) of all images as published; None where they differ.
        longest_side: of all images as published; None where it isn't limited.
        window: (lowest, highest) value of its images that become 0 and 255; see `read_image`.
        images: from the root folder to the image files, without looking for label maps, for
            ``DATASETS.UNLABELED``. Raises DataError where they aren't there.
        task: name in `afdcd.tasks.TASKS`: what its targets are and how predictions are scored.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    load: Callable[[Path], tuple[list[Record], LabelMap]]
    ignore_label: int = IGNORE
    expected: int | None = None
    official: LabelMap | None = None
    size: tuple[int, int] | None = None
    longest_side: int | None = None
    window: tuple[float, float] | None = None
    images: Callable[[Path], list[Path]] | None = None
    task: str = "semantic_segmentation"
