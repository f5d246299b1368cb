"""Random textures: what tells the synthetic classes apart is texture and shape, hardly colour.

Each function returns a `Texture`, which fills an area of a given height and width when asked.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
# (height, width) -> float32 [height, width, 3]
Texture = Callable[[int, int], np.ndarray]


def random_color(rng: Rng, low: int = 30, high: int = 225) -> np.ndarray:
    """Any colour (blue, green, red), float32 [3]."""
    return rng.integers(low, high, 3).astype(np.float32)


def color_near(rng: Rng, color: tuple[int, int, int], spread: float = 25.0) -> np.ndarray:
    """A colour around the given (blue, green, red), lighter or darker, float32 [3]."""
    light = rng.uniform(0.7, 1.2)
    return np.clip(np.array(color) * light + rng.normal(0, spread, 3), 5, 250).astype(np.float32)


def gray_color(rng: Rng, low: int = 60, high: int = 190, tint: float = 10.0) -> np.ndarray:
    """A nearly gray colour, float32 [3]."""
    return (rng.uniform(low, high) + rng.normal(0, tint, 3)).astype(np.float32)


def smooth_noise(rng: Rng, height: int, width: int, cells: int) -> np.ndarray:
    """Noise of about unit variance that varies over ``cells`` cells a side: [H, W]."""
    grid = rng.normal(0, 1, (cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def flat(color: np.ndarray) -> Texture:
    """One colour everywhere."""

    def fill(height: int, width: int) -> np.ndarray:
        return np.broadcast_to(color, (height, width, 3)).astype(np.float32)

    return fill


def grainy(rng: Rng, color: np.ndarray, grain: float) -> Texture:
    """A colour with slow and fast variation of the given strength (grey levels)."""

    def fill(height: int, width: int) -> np.ndarray:
        slow = smooth_noise(rng, height, width, 6) * grain
        fast = rng.normal(0, grain, (height, width)).astype(np.float32)
        return color + (slow + fast)[:, :, None]

    return fill


def leaves(rng: Rng, color: np.ndarray) -> Texture:
    """Blotches of a few pixels, light and dark."""

    def fill(height: int, width: int) -> np.ndarray:
        blotches = smooth_noise(rng, height, width, max(height, width, 10) // 5)
        return color * (1 + 0.35 * np.clip(blotches, -2, 2))[:, :, None]

    return fill


def stripes(color: np.ndarray, other: np.ndarray, period: int) -> Texture:
    """Upright stripes of two alternating colours, the period in pixels."""

    def fill(height: int, width: int) -> np.ndarray:
        first = (np.arange(width) % period < (period + 1) // 2)[None, :, None]
        return np.broadcast_to(np.where(first, color, other), (height, width, 3))

    return fill


def windows(rng: Rng, color: np.ndarray) -> Texture:
    """A wall with a grid of windows, some of them lit."""
    step_y, step_x = int(rng.integers(8, 15)), int(rng.integers(6, 13))
    glass, lit = color * rng.uniform(0.3, 0.7), random_color(rng)

    def fill(height: int, width: int) -> np.ndarray:
        texture = grainy(rng, color, 5)(height, width)
        for top in range(int(rng.integers(2, step_y)), height, step_y):
            for left in range(int(rng.integers(1, step_x)), width, step_x):
                pane = lit if rng.random() < 0.25 else glass
                texture[top : top + step_y // 2, left : left + step_x // 2] = pane
        return texture

    return fill


def bricks(rng: Rng, color: np.ndarray) -> Texture:
    """Paving stones: a grid of joints on a slightly varying ground."""
    step = int(rng.integers(5, 9))
    joint = color * rng.uniform(0.6, 0.85)

    def fill(height: int, width: int) -> np.ndarray:
        texture = grainy(rng, color, 5)(height, width)
        texture[int(rng.integers(step)) :: step] = joint
        texture[:, int(rng.integers(step)) :: step] = joint
        return texture

    return fill
