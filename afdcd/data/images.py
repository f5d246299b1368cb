"""Reading images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from afdcd.data.labels import DataError


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] in BGR.

    Raises:
        DataError: missing, unreadable or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no image at {path}")
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise DataError(f"{path} can't be read as an image: {error}") from error
    if image is None:
        raise DataError(f"{path} ({data.size} bytes) can't be read as an image: is it truncated?")
    return image
