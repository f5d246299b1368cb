"""The pictures of an analysis, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afdcd.analysis.runs import ALONE, DISTILLED, TEACHER
from afdcd.utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {TEACHER: "#6b4fa0", ALONE: "#b35c00", DISTILLED: "#00707a"}
# Names aren't formulas, even with dollar signs.
PLAIN: dict[str, Any] = {"parse_math": False}


def write_figures(content: Mapping[str, Any], colors: Sequence[Any], folder: Path) -> list[Path]:
    """Draw an analysis into a folder.

    Args:
        content: of ``analysis.json``.
        colors: (red, green, blue) of every class, for planes.
        folder: made if need be.

    Returns:
        the PNG files; beside each lies an SVG file of its name.
    """
    figures = {
        "classes": _classes(content["classes"]),
        "hard_cases": _bars(content["hard cases"]["pixels right"], "pixels right, in percent"),
    }
    for name, tap in content["taps"].items():
        figures[f"similarity_{name}"] = _similarity(tap)
        figures[f"plane_{name}"] = _planes(tap, colors)
        figures[f"distance_{name}"] = _distances(tap["distance"])
    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            write_atomically(path, partial(figure.savefig, format=kind, dpi=120))
        paths.append(folder / f"{name}.png")
    return paths


def _figure(width: float, height: float) -> Figure:
    # Imported here: it takes a while.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend(axes: Any, *, columns: int = 3) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False)


def _bars(groups: Mapping[str, Mapping[str, float | None]], label: str, axes: Any = None) -> Any:
    """Horizontal bars of each group, a colour a network."""
    figure = None
    if axes is None:
        figure = _figure(7, 1 + 0.5 * len(groups))
        axes = figure.add_subplot()
    titles = list(dict.fromkeys(title for values in groups.values() for title in values))
    height = 0.8 / max(len(titles), 1)
    for n, title in enumerate(titles):
        values = [np.nan if (v := g.get(title)) is None else v for g in groups.values()]
        places = np.arange(len(groups)) + (n - (len(titles) - 1) / 2) * height
        axes.barh(places, values, height, color=COLORS[title], label=title)
    axes.set_yticks(range(len(groups)), list(groups), **PLAIN)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(label)
    _legend(axes)
    return figure


def _classes(classes: Mapping[str, Any]) -> Figure:
    figure = _figure(10, 1 + 0.45 * len(classes))
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("IoU", "boundary IoU"), strict=True):
        _bars({name: values[key] for name, values in classes.items()}, f"{key}, percent", axes)
    return figure


def _similarity(tap: Mapping[str, Any]) -> Figure:
    found = tap["self-similarity"]
    figure = _figure(6, 3.5)
    axes = figure.add_subplot(xlabel="cosine of two positions of a patch", ylabel="share")
    for title, shares in found["shares"].items():
        distance = found["Wasserstein distance from the teacher"].get(title)
        said = "" if distance is None else f" (distance {distance:.3f})"
        edges = np.linspace(-1, 1, len(shares) + 1)
        axes.stairs(shares, edges, color=COLORS[title], label=title + said, linewidth=1.5)
    _legend(axes, columns=1)
    return figure


def _planes(tap: Mapping[str, Any], colors: Sequence[Any]) -> Figure:
    planes, labels = tap["plane"], np.array(tap["plane's classes"])
    figure = _figure(4 * len(planes), 4)
    for axes, (title, points) in zip(
        figure.subplots(1, len(planes), squeeze=False)[0], planes.items(), strict=True
    ):
        shades = np.array(colors)[labels] / 255
        axes.scatter(*np.array(points).T, c=shades, s=8, edgecolors="#555", linewidths=0.2)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _distances(distances: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    kinds = ("class", "region size", "distance from a boundary")
    first = next(iter(next(iter(distances.values())).values()))
    figure = _figure(6 * len(distances), 3 + 0.35 * sum(len(first[by]) for by in kinds))
    heights = [1 + len(first[by]) for by in kinds]
    all_axes = figure.subplots(3, len(distances), squeeze=False, height_ratios=heights)
    for column, (kind, by_title) in enumerate(distances.items()):
        for row, by in enumerate(kinds):
            groups = {name: {t: d[by].get(name) for t, d in by_title.items()} for name in first[by]}
            _bars(groups, f"{kind} distance from the teacher", all_axes[row][column])
    return figure
