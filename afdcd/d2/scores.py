"""Which figure of an evaluation decides which student is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from afdcd.d2.datasets import find_dataset
from afdcd.tasks import task_of

# Detectron2's own tasks, the one that matters most first, and their figures.
DETECTRON2_METRICS = {"panoptic_seg": "PQ", "sem_seg": "mIoU", "segm": "AP", "bbox": "AP"}


class MainScore(NamedTuple):
    """A figure by its name.

    Attributes:
        metric: the name.
        value: the figure.
        sign: 1 where more is better, -1 where less is.
    """

    metric: str
    value: float
    sign: int = 1

    def better(self, than: float | None) -> bool:
        """Whether it is better than a value; any is better than None, and none is if it is NaN."""
        if self.value != self.value:
            return False
        return than is None or self.sign * self.value > self.sign * than


def main_score(cfg: Any, figures: Mapping[str, Mapping[str, Any]]) -> MainScore:
    """The figure of the first test set's main task.

    Args:
        cfg: the config.
        figures: by data set and task.

    Raises:
        ValueError: there is none that is known.
    """
    name, first = next(iter(figures.items()))
    if cfg.INPUT.MAPPER == "scale_crop":
        task = task_of(find_dataset(name))
        value = float(first[task.TITLE][task.METRIC])
        return MainScore(task.METRIC, value, 1 if task.HIGHER_IS_BETTER else -1)
    for title, metric in DETECTRON2_METRICS.items():
        if title in first:
            return MainScore(metric, float(first[title][metric]))
    raise ValueError(f"no known score among {', '.join(first) or 'no figures'}")
