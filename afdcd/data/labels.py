"""Label maps: how the values stored in a file become training labels, and reading them safely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

IGNORE = 255
_INVALID = -1
# Larger images than Pillow's decompression-bomb limit are refused, not half read.
Image.MAX_IMAGE_PIXELS = 1 << 28


class DataError(ValueError):
    """A file of a data set is missing, unreadable or not what its data set says."""


@dataclass(frozen=True)
class LabelMap:
    """Stored value -> training label 0..K-1, or `IGNORE`; every other stored value is an error.

    Attributes:
        num_classes: K.
        mapping: training labels by stored value; ``{0: 0, ..., K-1: K-1}`` when empty.
        ignored: stored values that become `IGNORE`.
    """

    num_classes: int
    mapping: Mapping[int, int] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset({IGNORE})

    def table(self) -> np.ndarray:
        """int64: the training label of each stored value; -1 where there is none.

        At least 257 long, and longer by one than the largest value that has a label.
        """
        mapping = self.mapping or {value: value for value in range(self.num_classes)}
        table = np.full(max(256, *mapping, *self.ignored) + 1, _INVALID, dtype=np.int64)
        table[list(mapping)] = list(mapping.values())
        table[list(self.ignored)] = IGNORE
        return table

    def apply(self, stored: np.ndarray, source: str | Path) -> np.ndarray:
        """Map stored values [H, W] to uint8 training labels.

        Raises:
            DataError: a value that has no training label, naming ``source``, the values and a
                position.
        """
        table = self.table()
        labels = table[
            np.minimum(stored, np.int64(len(table) - 1))
        ]  # its last entry is always invalid
        if (labels == _INVALID).any():
            bad = labels == _INVALID
            row, column = np.argwhere(bad)[0]
            values = ", ".join(map(str, np.unique(stored[bad])[:8]))
            raise DataError(
                f"{source} holds label values that the data set doesn't define: {values} (first at "
                f"row {row}, column {column}; {int(bad.sum())} pixels). It has "
                f"{self.num_classes} classes and ignores {sorted(self.ignored)}: is it another "
                "data set's file, or a colour picture of the labels?"
            )
        return labels.astype(np.uint8)


def read_stored_labels(path: str | Path) -> np.ndarray:
    """Read a single-channel or palette image as it is stored: uint8 or int32 [H, W].

    Raises:
        DataError: missing, unreadable, truncated, or with several channels.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1", "I", "I;16", "I;16B", "I;16L"):
                raise DataError(
                    f"{path} has mode {image.mode}, but a label map has one channel: "
                    "is it a colour picture of the labels?"
                )
            values = np.array(image)
    except FileNotFoundError as error:
        raise DataError(f"no label map at {path}") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} can't be read as a label map: {error}") from error
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values if values.dtype == np.uint8 else values.astype(np.int32)


def read_labels(path: str | Path, label_map: LabelMap) -> np.ndarray:
    """Training labels uint8 [H, W] of a file, `IGNORE` where they don't count.

    Raises:
        DataError: see `read_stored_labels` and `LabelMap.apply`.
    """
    stored = read_stored_labels(path)
    if stored.min(initial=0) < 0:
        raise DataError(f"{path} holds negative label values, down to {stored.min()}")
    return label_map.apply(stored, path)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width from an image file's header.

    Raises:
        DataError: missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise DataError(f"no file at {path}") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} can't be read as an image: {error}") from error
