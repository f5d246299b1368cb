"""Label maps: how the values stored in a file become training labels, and reading them safely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from afdcd.data.label_files import largest_value, lossy_problem, unscaled

IGNORE = 255
_INVALID = -1
# Larger stored values (of 32-bit files) are looked up one by one instead of in a table.
_TABLE_LIMIT = 1 << 16
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
        encoding: ``index``, or ``rgb`` where a stored value is a colour, see `rgb_code`.
    """

    num_classes: int
    mapping: Mapping[int, int] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset({IGNORE})
    encoding: str = "index"

    def table(self) -> np.ndarray:
        """int64: the training label of each stored value; -1 where there is none.

        At least 257 long, and longer by one than the largest value that has a label.
        """
        mapping = self.mapping or {value: value for value in range(self.num_classes)}
        table = np.full(max(256, self._largest()) + 1, _INVALID, dtype=np.int64)
        table[list(mapping)] = list(mapping.values())
        table[list(self.ignored)] = IGNORE
        return table

    def apply(self, stored: np.ndarray, source: str | Path) -> np.ndarray:
        """Map stored values [H, W], at least 0, to uint8 training labels.

        Raises:
            DataError: a value that has no training label, naming ``source``, the values and a
                position.
        """
        fast = self._look_up_bytes(stored)
        if fast is not None:
            return fast
        labels = self._look_up(stored)
        if (labels == _INVALID).any():
            bad = labels == _INVALID
            row, column = np.argwhere(bad)[0]
            values = ", ".join(self._written(value) for value in np.unique(stored[bad])[:8])
            raise DataError(
                f"{source} holds label values that the data set doesn't define: {values} (first at "
                f"row {row}, column {column}; {int(bad.sum())} pixels). It has "
                f"{self.num_classes} classes and ignores "
                f"[{', '.join(self._written(value) for value in sorted(self.ignored))}]: "
                f"{self._hint()}"
            )
        return labels.astype(np.uint8)

    def stored_values(self) -> dict[int, int]:
        """The smallest stored value of each training label: what to write for other software."""
        mapping = self.mapping or {value: value for value in range(self.num_classes)}
        return {label: value for value, label in sorted(mapping.items(), reverse=True)}

    def _largest(self) -> int:
        """The largest stored value that has a label."""
        return max(self.num_classes - 1, 0, *self.mapping, *self.ignored)

    def _look_up_bytes(self, stored: np.ndarray) -> np.ndarray | None:
        """The labels of bytes that all have one; None where the thorough way must be gone."""
        # One byte must be left to mean invalid.
        if stored.dtype != np.uint8 or self.encoding != "index" or self.num_classes >= IGNORE:
            return None
        if self._largest() > _TABLE_LIMIT:
            return None
        table = self.table()[:256]
        invalid = IGNORE - 1
        labels = cv2.LUT(stored, np.where(table == _INVALID, invalid, table).astype(np.uint8))
        return None if (labels == invalid).any() else labels

    def _look_up(self, stored: np.ndarray) -> np.ndarray:
        if self.encoding == "index" and self._largest() <= _TABLE_LIMIT:
            table = self.table()
            # The table's last entry is always invalid.
            return table[np.minimum(stored, np.int64(len(table) - 1))]
        # Colours and 32-bit values are many, those of a map few: each is looked up once.
        values, where = np.unique(stored, return_inverse=True)
        labels = [
            IGNORE if value in self.ignored else self.mapping.get(value, _INVALID)
            for value in values.tolist()
        ]
        return np.array(labels, dtype=np.int64)[where].reshape(stored.shape)

    def _written(self, value: int) -> str:
        if self.encoding == "rgb":
            return str((int(value) & 255, int(value) >> 8 & 255, int(value) >> 16))
        return str(value)

    def _hint(self) -> str:
        if self.encoding == "rgb":
            return (
                "was it converted from JPEG, resized with interpolation, or is it another data "
                "set's?"
            )
        return "is it another data set's file, or a colour picture of the labels?"


def rgb_code(red: int, green: int, blue: int) -> int:
    """A colour as a number, as in COCO's panoptic files: red + 256 * green + 65536 * blue."""
    return red + (green << 8) + (blue << 16)


def read_stored_labels(path: str | Path, encoding: str = "index") -> np.ndarray:
    """Read a label map as it is stored: uint8 or int32 [H, W].

    Args:
        path: of an image; for ``index`` with one channel or a palette. Values of 1, 2 and 4 bits
            are 0 and 1, 0 to 3, 0 to 15.
        encoding: ``rgb`` gives `rgb_code` of the colours.

    Raises:
        DataError: missing, unreadable, truncated, of another kind than its encoding says, or in a
            lossy format.
    """
    try:
        with Image.open(path) as image:
            if problem := lossy_problem(image, path):
                raise DataError(problem)
            values = _index_values(image, path) if encoding == "index" else _colors(image, path)
    except FileNotFoundError as error:
        raise DataError(f"no label map at {path}") from error
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{path} can't be read as a label map: {error}") from error
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values if values.dtype == np.uint8 else values.astype(np.int32)


def _index_values(image: Image.Image, path: str | Path) -> np.ndarray:
    if image.mode not in ("L", "P", "1", "I", "I;16", "I;16B", "I;16L"):
        raise DataError(
            f"{path} has mode {image.mode}, but a label map has one channel: "
            "is it a colour picture of the labels?"
        )
    largest = largest_value(image)
    return unscaled(np.array(image), largest)


def _colors(image: Image.Image, path: str | Path) -> np.ndarray:
    if image.mode not in ("RGB", "RGBA", "P"):
        raise DataError(
            f"{path} has mode {image.mode}, but its labels are said to be colours: set "
            "labels.encoding to index for one channel"
        )
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path} is transparent in places: which label is meant there?")
    values = np.asarray(image.convert("RGB")).astype(np.int32)
    return values[..., 0] + (values[..., 1] << 8) + (values[..., 2] << 16)


def read_labels(path: str | Path, label_map: LabelMap) -> np.ndarray:
    """Training labels uint8 [H, W] of a file, `IGNORE` where they don't count.

    Raises:
        DataError: see `read_stored_labels` and `LabelMap.apply`.
    """
    stored = read_stored_labels(path, label_map.encoding)
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
    except Exception as error:  # see read_stored_labels
        raise DataError(f"{path} can't be read as an image: {error}") from error
