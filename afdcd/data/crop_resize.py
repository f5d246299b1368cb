"""A crop of a resized image, resizing only what the crop shows."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

# A scale p/q with larger p has no useful grid of common positions.
LARGEST_PERIOD = 128


class Crop(NamedTuple):
    """Rows ``top`` to ``bottom - 1`` and columns ``left`` to ``right - 1`` of a resized image."""

    top: int
    bottom: int
    left: int
    right: int


def resized_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of a resized image, as OpenCV rounds them (halves to even)."""
    return int(np.rint(size[0] * scale)), int(np.rint(size[1] * scale))


def crop_of_resized_image(image: np.ndarray, scale: float, crop: Crop) -> np.ndarray:
    """``cv2.resize(image, None, fx=scale, fy=scale)[top:bottom, left:right]``, bilinear.

    With scale = p/q, every p-th pixel of the resized image falls on the same fraction of a pixel as
    every q-th of the original, so a part of the original that starts at a multiple of q is resized
    to exactly the pixels that the whole would be. (OpenCV computes positions in float32, so that a
    value may differ by one grey level in large images.)

    Args:
        image: uint8 [H, W, 3].
        scale: factor of both sides.
        crop: inside the resized image.
    """
    if crop.top >= crop.bottom or crop.left >= crop.right:
        return image[:0, :0]  # scaled to nothing
    if _unchanged(image, scale):
        return image[crop.top : crop.bottom, crop.left : crop.right]
    ratio = Fraction(scale).limit_denominator(LARGEST_PERIOD)
    if abs(float(ratio) - scale) < 1e-9 and ratio.numerator <= LARGEST_PERIOD:
        rows = _source(crop.top, crop.bottom, image.shape[0], ratio)
        columns = _source(crop.left, crop.right, image.shape[1], ratio)
        part = image[rows[0] : rows[1], columns[0] : columns[1]]
        resized = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        top = crop.top - rows[0] // ratio.denominator * ratio.numerator
        left = crop.left - columns[0] // ratio.denominator * ratio.numerator
        height, width = crop.bottom - crop.top, crop.right - crop.left
        found = resized[top : top + height, left : left + width]
        if found.shape[:2] == (height, width):
            return found
        # Rounded otherwise at the edge than the whole image is.
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return resized[crop.top : crop.bottom, crop.left : crop.right]


def _unchanged(array: np.ndarray, scale: float) -> bool:
    """Whether OpenCV copies: also tiny images whose size rounds to what it was."""
    height, width = array.shape[:2]
    return resized_size((height, width), scale) == (height, width)


def _source(first: int, last: int, length: int, ratio: Fraction) -> tuple[int, int]:
    """Pixels of the original that pixels ``first`` to ``last - 1`` of the resized one depend on.

    Whole periods, and one more on either side, so that no neighbour is missing.
    """
    p, q = ratio.numerator, ratio.denominator
    start = max(first // p - 1, 0) * q
    end = min((-(-last // p) + 1) * q, length)
    return start, end


def crop_of_resized_labels(labels: np.ndarray, scale: float, crop: Crop) -> np.ndarray:
    """The same of labels [H, W], by nearest neighbour as OpenCV's ``INTER_NEAREST``."""
    if _unchanged(labels, scale):
        return labels[crop.top : crop.bottom, crop.left : crop.right]
    step = 1.0 / scale
    rows = np.minimum(np.floor(np.arange(crop.top, crop.bottom) * step), labels.shape[0] - 1)
    columns = np.minimum(np.floor(np.arange(crop.left, crop.right) * step), labels.shape[1] - 1)
    return labels[rows.astype(np.intp)[:, None], columns.astype(np.intp)]
