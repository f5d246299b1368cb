"""An evaluator in the form of Detectron2's ``DatasetEvaluator``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from afdcd.evaluation.boundary import BoundaryIoU
from afdcd.evaluation.confusion import ConfusionMatrix


class SegmentationEvaluator:
    """Scores predictions against the labels of their records.

    Args:
        classes: names, in label order.
        read_labels: maps a record to its labels, uint8 [H, W], at the record's full size.
        ignore_label: label of the pixels that don't count.
    """

    def __init__(
        self,
        classes: Sequence[str],
        read_labels: Callable[[dict[str, Any]], np.ndarray],
        *,
        ignore_label: int = 255,
    ) -> None:
        self.classes = tuple(classes)
        self.read_labels = read_labels
        self.ignore_label = ignore_label
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        settings = {"ignore_label": self.ignore_label}
        self.confusion = ConfusionMatrix(len(self.classes), **settings)
        self.boundary = BoundaryIoU(len(self.classes), **settings)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add images: the model's inputs, and its outputs with ``sem_seg`` [K, H, W]."""
        for item, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].argmax(dim=0).cpu().numpy()
            labels = self.read_labels(item)
            self.confusion.update(prediction, labels)
            self.boundary.update(prediction, labels)

    def merge(self, other: SegmentationEvaluator) -> None:
        """Add what another evaluator, of other images, has counted."""
        self.confusion.counts += other.confusion.counts
        self.boundary.merge(other.boundary)

    def evaluate(self) -> dict[str, float]:
        """Figures in percent: mIoU, pACC, mACC, fwIoU, mBoundaryIoU, and by class."""
        return self.confusion.results(self.classes) | self.boundary.results(self.classes)
