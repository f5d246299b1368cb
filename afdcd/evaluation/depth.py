"""Scores of predicted depths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

Alignment = Literal["none", "median", "affine"]
FIGURES = ("AbsRel", "RMSE", "logRMSE", "delta1", "delta2", "delta3")
# Of disparities, whose size means nothing.
FITTED_FIGURES = ("FitMAE", "FitRMSE")
# Natural logarithms of depths in metres beyond these are cut off: no camera sees such depths, and
# their exponentials would not be finite.
LARGEST_LOG = 20.0


def depth_of(log_depth: torch.Tensor) -> np.ndarray:
    """Depths, float32 above 0, from a network's output.

    Args:
        log_depth: natural logarithms of depths, of any shape and type.
    """
    return log_depth.float().clamp(-LARGEST_LOG, LARGEST_LOG).exp().cpu().numpy()


def depth_figures(
    prediction: np.ndarray, truth: np.ndarray, *, alignment: Alignment = "none"
) -> dict[str, float] | None:
    """The figures of one image.

    Over the n pixels with a depth, with y predicted and t true::

        AbsRel  = 100 / n * sum of |y - t| / t                  in percent
        RMSE    = sqrt(1 / n * sum of (y - t)^2)                in metres
        logRMSE = sqrt(1 / n * sum of (log y - log t)^2)        natural logarithms
        delta_k = 100 / n * number with max(y / t, t / y) < 1.25^k    in percent, k = 1, 2, 3

    Eigen et al. 2014, section 4 (arXiv 1406.2283). Of disparities, which neither a factor nor an
    offset changes, after a fit to the truth::

        FitMAE  = 100 * sum of |y - t| / sum of |t - median(t)|                  in percent
        FitRMSE = 100 * sqrt(sum of (y - t)^2 / sum of (t - mean(t))^2)          in percent

    Args:
        prediction: [H, W], above 0.
        truth: [H, W]; pixels of 0 don't count.
        alignment: what is done to predictions first. ``median``: multiplied by
            median(t) / median(y), for networks that know depths up to a factor (Zhou et al., arXiv
            1704.07813). ``affine``: all are disparities, known up to a factor, at least 0, and an
            offset; both are fitted to the truth by least squares (Ranftl et al., arXiv 1907.01341).

    Returns:
        None where no pixel counts, or all disparities are equal.

    Raises:
        ValueError: the two differ in size.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"a prediction of {list(prediction.shape)} pixels can't be scored on depths of "
            f"{list(truth.shape)}"
        )
    counted = truth > 0
    if not counted.any():
        return None
    y, t = prediction[counted].astype(np.float64), truth[counted].astype(np.float64)
    if alignment == "median":
        y *= np.median(t) / np.median(y)
    elif alignment == "affine":
        return _fitted_figures(y, t)
    ratio = np.maximum(y / t, t / y)
    values = (
        100 * np.mean(np.abs(y - t) / t),
        np.sqrt(np.mean((y - t) ** 2)),
        np.sqrt(np.mean((np.log(y) - np.log(t)) ** 2)),
        *(100 * np.mean(ratio < 1.25**k) for k in (1, 2, 3)),
    )
    return dict(zip(FIGURES, map(float, values), strict=True))


def _fitted_figures(y: np.ndarray, t: np.ndarray) -> dict[str, float] | None:
    spread, truth = y - y.mean(), t - t.mean()
    power = float(spread @ spread)
    slope = max(float(spread @ truth), 0.0) / power if power > 0 else 0.0
    error, deviation = slope * spread - truth, np.abs(t - np.median(t)).sum()
    if deviation == 0:
        return None
    values = (
        100 * np.abs(error).sum() / deviation,
        100 * np.sqrt((error @ error) / (truth @ truth)),
    )
    return dict(zip(FITTED_FIGURES, map(float, values), strict=True))


class DepthEvaluator:
    """Scores predictions against the depths of their records, in Detectron2's form.

    Args:
        read_depth: maps a record to its depths, [H, W], at the record's full size. It travels
            between processes with the evaluator.
        alignment: see `depth_figures`.
    """

    def __init__(
        self, read_depth: Callable[[dict[str, Any]], np.ndarray], *, alignment: Alignment = "none"
    ) -> None:
        self.read_depth, self.alignment = read_depth, alignment
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.images: list[dict[str, float]] = []
        self.baseline: list[float] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add images: the model's inputs, and its outputs with ``sem_seg``, log depth [1, H, W]."""
        for item, output in zip(inputs, outputs, strict=True):
            truth = self.read_depth(item)
            log_depth = output["sem_seg"][0]
            found = depth_of(-log_depth if self.alignment == "affine" else log_depth)
            figures = depth_figures(found, truth, alignment=self.alignment)
            if figures is None:
                continue
            self.images.append(figures)
            depths = truth[truth > 0].astype(np.float64)
            errors = np.abs(np.median(depths) - depths) / depths
            # Of disparities the median's own deviation is the unit.
            constant = 1.0 if self.alignment == "affine" else float(np.mean(errors))
            self.baseline.append(100 * constant)

    def merge(self, other: DepthEvaluator) -> None:
        """Add what another evaluator, of other images, has counted."""
        self.images += other.images
        self.baseline += other.baseline

    def evaluate(self) -> dict[str, float]:
        """The means over the images with a depth; NaN without any.

        Sums are exact, so that they don't depend on which process has seen which image.
        """
        names = FITTED_FIGURES if self.alignment == "affine" else FIGURES
        return {name: _mean([figures[name] for figures in self.images]) for name in names}

    def constant(self) -> float:
        """AbsRel or FitMAE, in percent, of predicting each image's true median everywhere."""
        return _mean(self.baseline)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
