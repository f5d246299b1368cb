"""Label maps as they are written."""

from __future__ import annotations

import numpy as np

from afdcd.data.labels import LabelMap
from afdcd.utils.problems import SetupError


def stored_labels(labels: np.ndarray, classes: int, official: LabelMap | None) -> np.ndarray:
    """Labels [H, W] as they are written: uint8, uint16, or (colours) uint8 [H, W, 3] in BGR.

    Args:
        labels: of ``classes`` classes.
        classes: how many there are.
        official: label map whose stored values are written; None for the labels themselves.

    Raises:
        SetupError: a value doesn't fit a 16-bit PNG file.
    """
    table = np.arange(classes)
    if official is not None:
        values = official.stored_values()
        table = np.array([values[k] for k in range(official.num_classes)])
    stored = table[labels]
    if official is not None and official.encoding == "rgb":
        return np.stack([stored >> 16, stored >> 8 & 255, stored & 255], axis=-1).astype(np.uint8)
    if table.max() > 65535:
        raise SetupError([f"label values up to {table.max()} don't fit a 16-bit PNG file"])
    return stored.astype(np.uint8 if table.max() < 256 else np.uint16)
