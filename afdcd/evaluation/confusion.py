"""Mean intersection over union and related scores, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ABSENT = ("skip", "zero")


class ConfusionMatrix:
    """Counts pixels by true and predicted class.

    Attributes:
        counts: int64 [K, K]; rows are true classes, columns predicted ones.
    """

    def __init__(self, num_classes: int, *, ignore_label: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, prediction: np.ndarray, labels: np.ndarray) -> None:
        """Add the pixels of integer maps of equal shape; ignored labels don't count.

        Raises:
            ValueError: shapes differ, or a value isn't a class (nor, for a label, ignored).
        """
        if prediction.shape != labels.shape:
            raise ValueError(
                f"prediction {prediction.shape} and labels {labels.shape} must have the same shape"
            )
        valid = labels != self.ignore_label
        truth, guess = labels[valid].astype(np.int64), prediction[valid].astype(np.int64)
        for name, values in (("labels", truth), ("predictions", guess)):
            if values.size and not 0 <= values.min() <= values.max() < self.num_classes:
                raise ValueError(
                    f"{name} must be 0..{self.num_classes - 1}"
                    f"{f' or {self.ignore_label}' if name == 'labels' else ''}; "
                    f"got {values.min()}..{values.max()}"
                )
        pairs = truth * self.num_classes + guess
        self.counts += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.counts.shape)

    @property
    def intersection(self) -> np.ndarray:
        """int64 [K]: pixels that are and were predicted to be each class."""
        return np.diagonal(self.counts)

    @property
    def union(self) -> np.ndarray:
        """int64 [K]: pixels that are or were predicted to be each class."""
        return self.counts.sum(0) + self.counts.sum(1) - self.intersection

    def iou(self) -> np.ndarray:
        """float64 [K]: intersection over union as fractions; NaN for a class without true pixels.

        A class that the labels never show is left out of the mean, as in Detectron2's
        ``SemSegEvaluator``. See `mean_iou` for what the published release does.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.counts.sum(1) > 0, self.intersection / self.union, np.nan)

    def mean_iou(self, absent: str = "skip") -> float:
        """Mean over the classes, as a fraction.

        Args:
            absent: ``skip`` leaves classes without true pixels out (Detectron2); ``zero`` counts
                them as 0 (the published release). All benchmarks' evaluation sets show all
                classes, where both agree.
        """
        if absent not in ABSENT:
            raise ValueError(f"absent must be one of {', '.join(ABSENT)}; got {absent!r}")
        iou = self.iou()
        if absent == "zero":
            return float(np.nan_to_num(iou).mean())
        return _mean(iou)

    def pixel_accuracy(self) -> float:
        """Share of the pixels whose class was predicted; NaN without pixels."""
        total = self.counts.sum()
        return float(self.intersection.sum() / total) if total else float("nan")

    def results(self, classes: Sequence[str]) -> dict[str, float]:
        """The figures in percent, under the names of Detectron2's ``SemSegEvaluator``."""
        truth = self.counts.sum(1)
        iou = self.iou()
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = np.where(truth > 0, self.intersection / truth, np.nan)
            frequency_weighted = float(np.nansum(iou * truth) / truth.sum())
        figures = {"mIoU": _mean(iou), "fwIoU": frequency_weighted}
        figures |= {f"IoU-{name}": float(v) for name, v in zip(classes, iou, strict=True)}
        figures |= {"mACC": _mean(accuracy), "pACC": self.pixel_accuracy()}
        figures |= {f"ACC-{name}": float(v) for name, v in zip(classes, accuracy, strict=True)}
        return {name: 100 * value for name, value in figures.items()}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
