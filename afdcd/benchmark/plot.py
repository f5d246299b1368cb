"""A chart of the times: a bar for each variant, its parts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from afdcd.utils.files import write_atomically


def draw_bars(path: Path, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Write a PNG.

    Args:
        path: of the file.
        title: above the bars.
        rows: seconds by part, by variant.

    Raises:
        OSError: it can't be written.
    """
    # Imported here, since most benchmarks draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="seconds")
    ends = np.zeros(len(rows))
    for part in dict.fromkeys(part for row in rows.values() for part in row):
        seconds = [row.get(part, 0.0) for row in rows.values()]
        bars = axes.barh(list(rows), seconds, left=ends, label=part)
        ends += seconds
    axes.bar_label(bars, [f"{end:.3g} s" for end in ends], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    figure.legend(loc="outside lower center", ncols=6)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
