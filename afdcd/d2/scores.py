"""Which figure of an evaluation decides which student is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from afdcd.d2.datasets import find_dataset
from afdcd.tasks import Task, task_of

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
    if (task := _own_task(cfg, name)) is not None:
        value = float(first[task.TITLE][task.METRIC])
        return MainScore(task.METRIC, value, 1 if task.HIGHER_IS_BETTER else -1)
    for title, metric in DETECTRON2_METRICS.items():
        if title in first:
            return MainScore(metric, float(first[title][metric]))
    raise ValueError(f"no known score among {', '.join(first) or 'no figures'}")


def main_alone(cfg: Any, data_set: str, figures: Mapping[str, float]) -> dict[str, float]:
    """The main task's figure among those of a record, which the embedded runtime fills with all.

    Args:
        cfg: the config.
        data_set: that they are of.
        figures: by metric.
    """
    task = _own_task(cfg, data_set)
    return {k: value for k, value in figures.items() if task is None or k == task.METRIC}


def _own_task(cfg: Any, data_set: str) -> Task | None:
    """This package's task of a data set; None where Detectron2's are scored."""
    return task_of(find_dataset(data_set)) if cfg.INPUT.MAPPER == "scale_crop" else None
