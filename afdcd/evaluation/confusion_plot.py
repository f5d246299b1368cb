"""The confusion matrix as a picture and as a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from afdcd.utils.files import write_atomically, write_text

CELL = 26
# Beyond so many classes cells shrink and carry no numbers.
NUMBERED = 40
FONT, SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.36


def confusion_picture(counts: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Percent of each true class's pixels (row) by predicted class (column), as a BGR picture.

    Args:
        counts: int [K, K]; rows are true classes.
        classes: K names.

    Returns:
        uint8 [h, w, 3]; the darker the more. Rows without pixels are grey.
    """
    count = len(classes)
    if counts.shape != (count, count):
        raise ValueError(f"counts must be [{count}, {count}]; got {counts.shape}")
    cell = CELL if count <= NUMBERED else max(4, CELL * NUMBERED // count)
    truth = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(truth, 1)
    shades = np.empty((count, count, 3), dtype=np.uint8)
    # White to dark blue.
    for channel, dark in enumerate((110, 40, 10)):
        shades[..., channel] = np.rint(255 - (255 - dark) * np.sqrt(shares))
    shades[truth[:, 0] == 0] = 225
    body = np.kron(shades, np.ones((cell, cell, 1), dtype=np.uint8))
    if count <= NUMBERED:
        for row in range(count):
            for column in range(count):
                _number(body, shares[row, column], row, column, cell)
    return _with_names(body, classes, cell)


def write_confusion(folder: Path, name: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Write ``confusion_<name>.png`` and ``.csv`` (pixel counts; rows are true classes)."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "confusion_" + re.sub(r"[^\w.-]+", "_", Path(name).name)
    done, data = cv2.imencode(".png", confusion_picture(counts, classes))
    if not done:
        raise OSError(f"can't encode the confusion matrix of {name}")
    write_atomically(folder / f"{stem}.png", lambda file: file.write(data.tobytes()))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_text(folder / f"{stem}.csv", table.getvalue())


def _number(body: np.ndarray, share: float, row: int, column: int, cell: int) -> None:
    percent = round(100 * share)
    if percent:
        text = str(percent)
        (width, height), _ = cv2.getTextSize(text, FONT, SIZE, 1)
        place = (column * cell + (cell - width) // 2, row * cell + (cell + height) // 2)
        color = (255, 255, 255) if share > 0.4 else (60, 60, 60)
        cv2.putText(body, text, place, FONT, SIZE, color, 1, cv2.LINE_AA)


def _with_names(body: np.ndarray, classes: Sequence[str], cell: int) -> np.ndarray:
    """Names of true classes on the left, of predicted ones (turned) on top."""
    size = min(SIZE, cell / CELL * SIZE)
    strip = 8 + max(cv2.getTextSize(name, FONT, size, 1)[0][0] for name in classes)
    names = np.full((len(body), strip, 3), 255, dtype=np.uint8)
    for index, name in enumerate(classes):
        place = (4, index * cell + cell * 2 // 3)
        cv2.putText(names, name, place, FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    corner = np.full((strip, strip, 3), 255, dtype=np.uint8)
    # Turned to the left, row 0 becomes column 0.
    top = np.rot90(names, 1)
    return np.vstack([np.hstack([corner, top]), np.hstack([names, body])])
