"""Boundary IoU: intersection over union of the pixels near the borders of a class."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

DILATION_RATIO = 0.02


def boundary_region(mask: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of a mask that are within ``distance`` (chessboard) of its border.

    What lies outside the image counts as outside the mask.

    Args:
        mask: bool [H, W].
        distance: in pixels, at least 1.

    Returns:
        bool [H, W].
    """
    padded = cv2.copyMakeBorder(
        mask.view(np.uint8), distance, distance, distance, distance, cv2.BORDER_CONSTANT, value=0
    )
    # One erosion by a square of 2 * distance + 1 is ``distance`` erosions by 3x3.
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    inner = cv2.erode(padded, square)[distance:-distance, distance:-distance].astype(bool)
    return mask & ~inner


class BoundaryIoU:
    """Boundary IoU (Cheng et al., arXiv 2103.16562) of each class, summed over a data set.

    For each class, the boundary region of the true and of the predicted mask within 2 % of the
    image's diagonal; their intersection over their union. Ignored pixels belong to no mask and
    don't count. (Detectron2's evaluator takes the difference of eroded label *numbers* instead.)
    """

    def __init__(self, num_classes: int, *, ignore_label: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.intersection = np.zeros(num_classes, dtype=np.int64)
        self.union = np.zeros(num_classes, dtype=np.int64)

    def update(self, prediction: np.ndarray, labels: np.ndarray) -> None:
        """Add an image's integer maps [H, W]."""
        distance = max(1, round(DILATION_RATIO * float(np.hypot(*labels.shape))))
        valid = labels != self.ignore_label
        present = np.union1d(np.unique(labels[valid]), np.unique(prediction[valid]))
        for label in present:
            truth = boundary_region((labels == label) & valid, distance)
            guess = boundary_region((prediction == label) & valid, distance)
            self.intersection[label] += np.count_nonzero(truth & guess)
            self.union[label] += np.count_nonzero(truth | guess)

    def merge(self, other: BoundaryIoU) -> None:
        """Add what another instance has counted."""
        self.intersection += other.intersection
        self.union += other.union

    def results(self, classes: Sequence[str]) -> dict[str, float]:
        """``mBoundaryIoU`` and ``BoundaryIoU-<class>`` in percent; NaN for a class never seen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = 100 * self.intersection / self.union
        mean = float(np.nanmean(iou)) if (self.union > 0).any() else float("nan")
        figures = {"mBoundaryIoU": mean}
        return figures | {
            f"BoundaryIoU-{name}": float(value) for name, value in zip(classes, iou, strict=True)
        }
