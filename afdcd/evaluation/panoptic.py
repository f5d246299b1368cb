"""Panoptic quality, by the rules of the COCO panoptic challenge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

VOID = 0


@dataclass
class _Tally:
    """Counts of one category: the matches' summed IoU, and segments with and without a match."""

    iou: float = 0.0
    matched: int = 0
    unmatched_predictions: int = 0
    unmatched_truths: int = 0


class PanopticQuality:
    """Panoptic quality (Kirillov et al., arXiv 1801.00868) summed over a data set.

    A predicted and a true segment of one category match when their IoU is above 1/2; void pixels
    don't count in the union. Crowd segments are never matched nor missed. A predicted segment
    without a match isn't a mistake where more than half of it is void or crowd of its category.

    torchmetrics' class isn't used because it has no rule for crowds, and doesn't count a true
    segment as missed where most of it was left unpredicted. Otherwise they agree, as a test checks.

    Args:
        categories: whether each category id is a thing.
    """

    def __init__(self, categories: Mapping[int, bool]) -> None:
        self.categories = dict(categories)
        self._tallies = {category: _Tally() for category in self.categories}

    def update(
        self,
        prediction: np.ndarray,
        predicted: Mapping[int, int],
        truth: np.ndarray,
        true: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add an image.

        Args:
            prediction: integer segment ids [H, W]; 0 where nothing is predicted.
            predicted: category of each predicted segment id.
            truth: integer segment ids [H, W]; 0 is void.
            true: ``id``, ``category_id`` and (optionally) ``iscrowd`` of each true segment.

        Raises:
            ValueError: shapes differ, or a segment or category is unknown.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ")
        segments = {int(s["id"]): s for s in true}
        self._check(prediction, predicted, "predicted")
        self._check(truth, {k: int(s["category_id"]) for k, s in segments.items()}, "true")

        ids, counts = np.unique(
            np.stack([truth.ravel(), prediction.ravel()]), axis=1, return_counts=True
        )
        overlap = {(int(t), int(p)): int(n) for (t, p), n in zip(ids.T, counts, strict=True)}
        predicted_area = _areas(prediction)
        true_area = _areas(truth)

        matched_truths, matched_predictions = set(), set()
        for (t, p), shared in overlap.items():
            if t == VOID or p == VOID or segments[t].get("iscrowd", 0):
                continue
            category = int(segments[t]["category_id"])
            if category != predicted[p]:
                continue
            union = true_area[t] + predicted_area[p] - shared - overlap.get((VOID, p), 0)
            if shared / union > 0.5:
                self._tallies[category].iou += shared / union
                self._tallies[category].matched += 1
                matched_truths.add(t)
                matched_predictions.add(p)

        crowds: dict[int, list[int]] = {}
        for t in true_area.keys() - matched_truths - {VOID}:
            category = int(segments[t]["category_id"])
            if segments[t].get("iscrowd", 0):
                crowds.setdefault(category, []).append(t)
            else:
                self._tallies[category].unmatched_truths += 1
        for p in predicted_area.keys() - matched_predictions - {VOID}:
            excused = [VOID, *crowds.get(predicted[p], [])]
            if sum(overlap.get((t, p), 0) for t in excused) <= 0.5 * predicted_area[p]:
                self._tallies[predicted[p]].unmatched_predictions += 1

    def _check(self, ids: np.ndarray, categories: Mapping[int, int], whose: str) -> None:
        for segment in np.unique(ids):
            if segment != VOID and int(segment) not in categories:
                raise ValueError(f"the {whose} segment {segment} has no category")
        for category in categories.values():
            if category not in self.categories:
                raise ValueError(f"the {whose} category {category} is unknown")

    def results(self) -> dict[str, float]:
        """``PQ``, ``SQ`` and ``RQ`` in percent; for things with ``_th``, for stuff with ``_st``.

        Means over the categories that were seen or predicted; NaN where there are none.
        """
        figures = {}
        for suffix, kinds in (("", (True, False)), ("_th", (True,)), ("_st", (False,))):
            rows = []
            for category, tally in self._tallies.items():
                mistakes = tally.unmatched_predictions + tally.unmatched_truths
                count = tally.matched + 0.5 * mistakes
                if self.categories[category] in kinds and count > 0:
                    quality = tally.iou / tally.matched if tally.matched else 0.0
                    rows.append((tally.iou / count, quality, tally.matched / count))
            means = np.mean(rows, axis=0) if rows else np.full(3, np.nan)
            for name, value in zip(("PQ", "SQ", "RQ"), means, strict=True):
                figures[f"{name}{suffix}"] = 100 * float(value)
        return figures

    def merge(self, other: PanopticQuality) -> None:
        """Add another process's images."""
        for category, tally in other._tallies.items():
            total = self._tallies[category]
            total.iou += tally.iou
            total.matched += tally.matched
            total.unmatched_predictions += tally.unmatched_predictions
            total.unmatched_truths += tally.unmatched_truths


def _areas(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}
