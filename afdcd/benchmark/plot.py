"""A picture of the times: a bar for each variant, its parts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

# Blue, green, red.
COLORS = (
    (180, 120, 40),
    (90, 160, 60),
    (60, 140, 230),
    (70, 70, 200),
    (160, 160, 160),
    (150, 90, 150),
)
BAR, GAP, LEFT, WIDTH, TOP = 28, 14, 210, 760, 56


def draw_bars(path: Path, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Write a PNG.

    Args:
        path: of the file.
        title: above the bars.
        rows: seconds by part, by variant; the longest bar fills the width.

    Raises:
        OSError: it can't be written.
    """
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    longest = max(sum(row.values()) for row in rows.values()) or 1.0
    height = TOP + len(rows) * (BAR + GAP) + 30
    picture = np.full((height, LEFT + WIDTH + 90, 3), 255, np.uint8)
    _text(picture, title, (10, 20), 0.5)
    for index, (name, row) in enumerate(rows.items()):
        top = TOP + index * (BAR + GAP)
        _text(picture, name, (10, top + 19), 0.45)
        left = float(LEFT)
        for part, value in row.items():
            right = left + value / longest * WIDTH
            color = COLORS[parts.index(part) % len(COLORS)]
            cv2.rectangle(picture, (round(left), top), (round(right), top + BAR), color, -1)
            left = right
        _text(picture, f"{sum(row.values()):.3g} s", (round(left) + 6, top + 19), 0.45)
    left_edge = LEFT
    for index, part in enumerate(parts):
        top = height - 24
        color = COLORS[index % len(COLORS)]
        cv2.rectangle(picture, (left_edge, top), (left_edge + 12, top + 12), color, -1)
        _text(picture, part, (left_edge + 18, top + 11), 0.42)
        left_edge += 40 + 8 * len(part)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"can't write {path}")


def _text(picture: np.ndarray, text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA)
