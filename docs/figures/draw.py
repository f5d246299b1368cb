"""Draw the figures of docs/how-it-works.md: python docs/figures/draw.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

HERE = Path(__file__).parent
STUDENT, TEACHER, LOSS, GREY = "#1f77b4", "#d95f02", "#2a7f3f", "#888888"
plt.rcParams.update({"font.size": 10, "svg.hashsalt": "afdcd", "svg.fonttype": "path"})


def box(axes, x, y, width, height, text, color, *, filled=False):
    """A rounded box with a text."""
    style = "round,pad=0.02,rounding_size=0.08"
    face = color if filled else "white"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=face, ec=color, lw=1.6))
    axes.text(
        x + width / 2,
        y + height / 2,
        text,
        ha="center",
        va="center",
        color="white" if filled else "black",
    )


def arrow(axes, start, end, color=GREY, *, dashed=False):
    """An arrow from one point to another."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=12,
            color=color,
            lw=1.4,
            linestyle="--" if dashed else "-",
            shrinkA=0,
            shrinkB=0,
        )
    )


def feature_map(axes, x, y, color, seed, *, hidden=None, size=4, cell=0.2):
    """A map of size x size cells in shades of a colour; hidden cells are white."""
    rng = np.random.default_rng(seed)
    shades = 0.25 + 0.65 * rng.random((size, size))
    for row in range(size):
        for column in range(size):
            gone = hidden is not None and hidden[row, column]
            axes.add_patch(
                Rectangle(
                    (x + column * cell, y + (size - 1 - row) * cell),
                    cell,
                    cell,
                    fc="white" if gone else color,
                    alpha=1 if gone else shades[row, column],
                    ec="#444444",
                    lw=0.6,
                )
            )


def save(figure, name):
    """Write the figure as SVG, the same bytes each time."""
    figure.savefig(HERE / name, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def pipeline():
    """Student and teacher, align, mask, projector, and the two losses."""
    figure, axes = plt.subplots(figsize=(9.6, 3.6))
    axes.set(xlim=(0, 12.1), ylim=(0, 4.5))
    axes.axis("off")
    box(axes, 0.1, 1.8, 1.1, 0.8, "image", GREY)
    box(axes, 1.9, 3.2, 1.5, 0.8, "teacher\n(frozen)", TEACHER, filled=True)
    box(axes, 1.9, 0.4, 1.5, 0.8, "student", STUDENT, filled=True)
    arrow(axes, (1.25, 2.4), (1.85, 3.5))
    arrow(axes, (1.25, 2.0), (1.85, 0.9))
    hidden = np.random.default_rng(3).random((4, 4)) < 0.75
    feature_map(axes, 3.9, 0.4, STUDENT, 1)
    box(axes, 5.1, 0.4, 0.9, 0.8, "align\n1x1", STUDENT)
    feature_map(axes, 6.4, 0.4, STUDENT, 2, hidden=hidden)
    box(axes, 7.6, 0.4, 1.3, 0.8, "projector\n3x3, 3x3", STUDENT)
    feature_map(axes, 9.3, 0.4, STUDENT, 5)
    feature_map(axes, 9.3, 3.2, TEACHER, 5)
    for start, end in ((3.45, 3.85), (4.75, 5.05), (6.05, 6.35), (7.25, 7.55), (8.95, 9.25)):
        arrow(axes, (start, 0.8), (end, 0.8))
    arrow(axes, (3.45, 3.6), (9.25, 3.6))
    axes.text(6.3, 3.75, "recorded once, on its principal components", ha="center", fontsize=9)
    for x, text in ((4.3, "s"), (6.8, "masked"), (9.7, "P")):
        axes.text(x, 0.12, text, ha="center", va="center")
    axes.text(9.7, 4.2, "t", ha="center", va="center")
    box(axes, 10.2, 1.75, 1.8, 0.9, "reconstruction\ncontrast", LOSS)
    arrow(axes, (10.15, 1.1), (11.0, 1.72), LOSS)
    arrow(axes, (10.15, 3.3), (11.0, 2.68), LOSS)
    box(axes, 3.9, 1.75, 1.5, 0.9, "task's loss\n(labels)", LOSS)
    arrow(axes, (2.65, 1.22), (3.88, 2.1), LOSS)
    save(figure, "pipeline.svg")


def tokens():
    """A patch of 4 x 4 positions whose channels are in four groups: positive and negatives."""
    figure, axes = plt.subplots(figsize=(9.6, 4.2))
    axes.set(xlim=(0, 12), ylim=(0, 5.2))
    axes.axis("off")
    step, lefts = 0.45, [2.1 + 2.4 * group for group in range(4)]
    for group, left in enumerate(lefts):
        axes.text(left + 2 * step, 5.0, f"channel group {group + 1}", ha="center", va="center")
        for bottom, student in ((2.9, True), (0.6, False)):
            for row in range(4):
                for column in range(4):
                    anchor = group == 1 and (row, column) == (1, 2)
                    if student:
                        face = STUDENT if anchor else "#dce8f2"
                    elif group == 1:
                        face = LOSS if anchor else "#eeeeee"
                    else:
                        face = "#f3b27a"
                    corner = (left + column * step, bottom + (3 - row) * step)
                    axes.add_patch(Rectangle(corner, step, step, fc=face, ec="#444444", lw=0.6))
    axes.text(1.8, 3.8, "student: P\none patch", ha="right", va="center", color=STUDENT)
    axes.text(1.8, 1.5, "teacher: t\nthe same patch", ha="right", va="center", color=TEACHER)
    x = lefts[1] + 2.5 * step
    arrow(axes, (x, 2.9 + 2.1 * step), (x, 0.6 + 3.0 * step), LOSS)
    axes.text(x + 0.1, 2.65, "close", color=LOSS, va="center")
    axes.text(
        6.6,
        0.2,
        "far: every token of the other groups in the patch (orange); grey ones don't count",
        ha="center",
        va="center",
        color="#a04a00",
    )
    save(figure, "tokens.svg")


if __name__ == "__main__":
    pipeline()
    tokens()
