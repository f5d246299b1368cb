"""The scores of an evaluation: a table by class, and a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from afdcd.utils.files import write_json

EVALUATION = "evaluation.json"
# Column -> prefix of its figures.
_COLUMNS = {"IoU": "IoU-", "boundary IoU": "BoundaryIoU-", "accuracy": "ACC-"}


def class_table(figures: Mapping[str, float]) -> str:
    """IoU, boundary IoU and accuracy of each class, and their means at the end, in percent.

    Args:
        figures: of ``sem_seg``, see `afdcd.evaluation.SegmentationEvaluator`.
    """
    classes = [name.removeprefix("IoU-") for name in figures if name.startswith("IoU-")]
    rows = [
        [name, *(_percent(figures.get(f"{prefix}{name}")) for prefix in _COLUMNS.values())]
        for name in classes
    ]
    means = (figures.get(name) for name in ("mIoU", "mBoundaryIoU", "mACC"))
    rows.append(["mean", *map(_percent, means)])
    aligned = ("left",) + ("right",) * len(_COLUMNS)
    return tabulate(rows, headers=["class", *_COLUMNS], disable_numparse=True, colalign=aligned)


def write_evaluation(folder: Path, weights: str, figures: Mapping[str, Any]) -> Path:
    """Write ``evaluation.json``: the weights, and the figures by data set and task.

    Figures that don't exist (of classes that never occur) are null.
    """
    path = folder / EVALUATION
    write_json(path, {"weights": weights, "figures": figures})
    return path


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
