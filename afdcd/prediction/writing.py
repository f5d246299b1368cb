"""How predictions are written: colour overlays and label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from afdcd.data.labels import LabelMap
from afdcd.data.spec import Color
from afdcd.report.panels import colorize
from afdcd.utils.files import write_atomically
from afdcd.utils.problems import SetupError


@dataclass(frozen=True)
class Style:
    """How predictions are written.

    Attributes:
        colors: (red, green, blue) by class.
        alpha: opacity of the colours in overlays.
        overlay, labels: what to write.
        official: label map whose stored values are written, or None for the labels themselves.
    """

    colors: tuple[Color, ...]
    alpha: float
    overlay: bool
    labels: bool
    official: LabelMap | None


def overlay(image: np.ndarray, labels: np.ndarray, style: Style) -> np.ndarray:
    """An image with its classes' colours on it, BGR."""
    colors = colorize(labels, style.colors)
    return cv2.addWeighted(colors, style.alpha, image, 1 - style.alpha, 0)


def stored_labels(labels: np.ndarray, style: Style) -> np.ndarray:
    """Labels [H, W] as they are written: uint8, uint16, or (colours) uint8 [H, W, 3] in BGR."""
    table = np.arange(len(style.colors))
    if style.official is not None:
        values = style.official.stored_values()
        table = np.array([values[k] for k in range(style.official.num_classes)])
    stored = table[labels]
    if style.official is not None and style.official.encoding == "rgb":
        return np.stack([stored >> 16, stored >> 8 & 255, stored & 255], axis=-1).astype(np.uint8)
    if table.max() > 65535:
        raise SetupError([f"label values up to {table.max()} don't fit a 16-bit PNG file"])
    return stored.astype(np.uint8 if table.max() < 256 else np.uint16)


def write_prediction(
    folder: Path, name: str, image: np.ndarray, labels: np.ndarray, style: Style
) -> None:
    """Write ``<name>_overlay.png`` and ``<name>_labels.png``; ``<name>.png`` of official values."""
    if style.overlay:
        write_png(folder / f"{name}_overlay.png", overlay(image, labels, style))
    if style.labels:
        suffix = ".png" if style.official is not None else "_labels.png"
        write_png(folder / f"{name}{suffix}", stored_labels(labels, style))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels (colours in BGR), whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"can't encode {path}")
    write_atomically(path, lambda file: file.write(data.tobytes()))
