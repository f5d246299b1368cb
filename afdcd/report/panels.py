"""Pictures of predictions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

IGNORED_COLOR = (0, 0, 0)
RIGHT, WRONG = (90, 90, 90), (255, 255, 255)
BETTER, WORSE = (60, 200, 60), (60, 60, 220)
TITLE_HEIGHT = 18
GAP = 4


def colorize(labels: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Labels [H, W] as a BGR picture; ``colors`` are (red, green, blue) by class, black beyond."""
    table = np.zeros((max(256, len(colors)), 3), dtype=np.uint8)
    table[:] = IGNORED_COLOR
    table[: len(colors)] = np.array(colors, dtype=np.uint8)[:, ::-1]
    return table[labels]


def difference(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, *, ignore_label: int = 255
) -> np.ndarray:
    """Where two predictions differ, as a BGR picture.

    Green: only ``after`` is right; red: only ``before`` is; grey: both are; white: neither is;
    black: ignored.
    """
    was, now = before == labels, after == labels
    picture = np.empty((*labels.shape, 3), dtype=np.uint8)
    for where, color in (
        (was & now, RIGHT),
        (~was & ~now, WRONG),
        (~was & now, BETTER),
        (was & ~now, WORSE),
        (labels == ignore_label, IGNORED_COLOR),
    ):
        picture[where] = color
    return picture


def comparison_panel(
    image: np.ndarray,
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    colors: Sequence[tuple[int, int, int]],
    *,
    compare: tuple[str, str],
    scale: int = 1,
) -> np.ndarray:
    """A row of titled pictures: the image, the truth, each prediction, and where two differ.

    Args:
        image: uint8 [H, W, 3] in BGR.
        labels: uint8 [H, W].
        predictions: integer maps [H, W] by title.
        colors: (red, green, blue) by class.
        compare: titles of two predictions; see `difference`.
        scale: factor by which small pictures are enlarged.

    Returns:
        uint8 [h, w, 3] in BGR.
    """
    before, after = (predictions[title] for title in compare)
    pictures = {"input": image, "truth": colorize(labels, colors)}
    pictures |= {title: colorize(map_, colors) for title, map_ in predictions.items()}
    pictures[f"{compare[1]}: better, worse"] = difference(labels, before, after)
    tiles = []
    for title, picture in pictures.items():
        if scale != 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        head = np.full((TITLE_HEIGHT, picture.shape[1], 3), 255, dtype=np.uint8)
        _write(head, title)
        tiles += [np.vstack([head, picture]), np.full((len(picture) + TITLE_HEIGHT, GAP, 3), 255)]
    return np.hstack(tiles[:-1]).astype(np.uint8)


def _write(picture: np.ndarray, text: str) -> None:
    """Write text into a white strip, as large as fits."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    size *= min(1.0, (picture.shape[1] - 4) / width)
    cv2.putText(picture, text, (2, TITLE_HEIGHT - 5), font, size, (0, 0, 0), 1, cv2.LINE_AA)
