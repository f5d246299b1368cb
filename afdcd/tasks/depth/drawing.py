"""Depths as pictures: near is bright."""

from __future__ import annotations

import cv2
import numpy as np

# Smaller pictures have no room for a legend.
_LEGEND_FROM = (48, 96)


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depths [H, W], above 0, as BGR [H, W, 3], from the nearest (bright) to the farthest (dark).

    Brightness goes by 1 / depth, since differences matter more where it is near.
    """
    nearness = 1 / depth.astype(np.float64)
    low, high = float(nearness.min()), float(nearness.max())
    grey = 255 * (nearness - low) / max(high - low, 1e-12)
    return cv2.applyColorMap(np.rint(grey).astype(np.uint8), cv2.COLORMAP_INFERNO)


def add_legend(picture: np.ndarray, depth: np.ndarray, unit: str) -> np.ndarray:
    """A picture with a bar at its lower edge: the colours, the nearest and the farthest depth.

    Args:
        picture: BGR [H, W, 3]; left as it is where it is too small for a legend.
        depth: [H, W], what it shows.
        unit: of the depths, such as ``m``.
    """
    height, width = picture.shape[:2]
    if height < _LEGEND_FROM[0] or width < _LEGEND_FROM[1]:
        return picture
    bar = max(height // 16, 11)
    ramp = np.rint(np.linspace(255, 0, width)).astype(np.uint8)
    legend = cv2.applyColorMap(np.tile(ramp, (bar, 1)), cv2.COLORMAP_INFERNO)
    size = bar / 30
    near, far = (f"{value:.3g}{unit}" for value in (float(depth.min()), float(depth.max())))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), _ = cv2.getTextSize(far, font, size, 1)
    base = (bar + text_height) // 2
    cv2.putText(legend, near, (2, base), font, size, (0, 0, 0), 1, cv2.LINE_AA)
    right = (max(width - text_width - 2, 0), base)
    cv2.putText(legend, far, right, font, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([picture[: height - bar], legend])
