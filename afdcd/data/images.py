"""Reading images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from afdcd.data.labels import DataError


def read_image(path: str | Path, window: Sequence[float] | None = None) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] in BGR, turned as its EXIF data say.

    Args:
        path: of the file.
        window: (lowest, highest) stored value, which become 0 and 255; for 16-bit images of which
            only a part of the range is used. By default 16 bits are divided by 256.

    Raises:
        DataError: missing, unreadable or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no image at {path}")
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    flags = cv2.IMREAD_COLOR if window is None else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise DataError(f"{path} can't be read as an image: {error}") from error
    if image is None:
        raise DataError(f"{path} ({data.size} bytes) can't be read as an image: is it truncated?")
    if window is None:
        return image
    low, high = window
    scaled = (image.astype(np.float32) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
