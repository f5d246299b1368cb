"""The confusion matrix as a picture and as a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afdcd.utils.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Sides of a cell and of the margins, in inches.
CELL, MARGINS = 0.26, 2.0
# With more classes than this, cells shrink and carry no numbers.
NUMBERED = 35


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Percent of each true class's pixels (row) by predicted class (column).

    Args:
        counts: int [K, K]; rows are true classes.
        classes: K names.

    Returns:
        a chart whose cells are darker for higher percentages; rows without pixels are grey.
    """
    # Imported here, since most evaluations draw nothing.
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(classes)
    if counts.shape != (count, count):
        raise ValueError(f"counts must be [{count}, {count}]; got {counts.shape}")
    truth = counts.sum(1, keepdims=True)
    percent = np.ma.masked_where((truth == 0).repeat(count, 1), 100 * counts / np.maximum(truth, 1))
    cell = CELL * min(1, NUMBERED / count)
    side = cell * count + MARGINS
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    axes.imshow(
        percent,
        cmap=colormaps["Blues"].with_extremes(bad="lightgrey"),
        # Shaded by the square root, so that a few percent are visible.
        norm=PowerNorm(0.5, vmin=0, vmax=100),
    )
    # A point is 1/72 of an inch; names aren't formulas, even with dollar signs.
    style: dict[str, Any] = {"fontsize": min(8, 0.8 * 72 * cell), "parse_math": False}
    axes.set_xticks(range(count), classes, rotation=90, **style)
    axes.set_yticks(range(count), classes, **style)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    if count <= NUMBERED:
        for (row, column), value in np.ndenumerate(percent.filled(0).round().astype(int)):
            if value:
                color = "white" if value > 40 else "black"
                axes.text(column, row, str(value), size=7, color=color, ha="center", va="center")
    return figure


def write_confusion(folder: Path, name: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Write ``confusion_<name>.png`` and ``.csv`` (pixel counts; rows are true classes)."""
    stem = "confusion_" + re.sub(r"[^\w.-]+", "_", Path(name).name)
    figure = confusion_figure(counts, classes)
    write_atomically(folder / f"{stem}.png", lambda file: figure.savefig(file, format="png"))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_text(folder / f"{stem}.csv", table.getvalue())
