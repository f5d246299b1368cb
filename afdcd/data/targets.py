"""How the targets of records are read: what a task and a mapper agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afdcd.data.images import turned_hint
from afdcd.data.labels import IGNORE, LabelMap, read_labels
from afdcd.data.spec import Record


class TargetReader(Protocol):
    """Reads a record's target. Travels to the loader's processes, so it can be pickled.

    Its ``repr`` says how it reads: files that are kept decoded (``DATALOADER.CACHE_DIR``) are read
    anew where that changes.

    Attributes:
        key: under which samples hold the target.
        pad_value: of pixels that don't count, such as those of a padded image.

    One whose values depend on the image's scale, as depth does, has ``at_scale(target, scale)``.
    """

    @property
    def key(self) -> str: ...

    @property
    def pad_value(self) -> float: ...

    def __call__(self, record: Record) -> np.ndarray:
        """The target [H, W], of the image's size and of any dtype.

        Raises:
            DataError: it can't be read.
        """


@dataclass(frozen=True)
class LabelReader:
    """Classes, uint8 [H, W], from a record's label map."""

    label_map: LabelMap
    key: str = "sem_seg"
    pad_value: float = IGNORE

    def __call__(self, record: Record) -> np.ndarray:
        return read_labels(record["sem_seg_file_name"], self.label_map)


def size_problem(record: Record, image: np.ndarray, target: np.ndarray) -> str:
    """That an image and its target differ in size; empty where they don't."""
    if image.shape[:2] == target.shape[:2]:
        return ""
    target_file = record.get("sem_seg_file_name", "")
    (height, width), (rows, columns) = image.shape[:2], target.shape[:2]
    return (
        f"{record['file_name']} is {height}x{width} but its label map {target_file} is "
        f"{rows}x{columns}{turned_hint(record['file_name'], (height, width), (rows, columns))}"
    )
