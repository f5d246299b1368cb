"""Sliding-window inference."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last one ends with the image."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / stride) + 1
    return [min(k * stride, length - window) for k in range(count)]


def window_logits(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
) -> torch.Tensor:
    """Raw logits of an image, averaged where windows overlap.

    Each window's logits are resized to the window, bilinearly with ``align_corners=True``.

    Args:
        logits_of: maps a normalized image [1, 3, h, w] to logits [1, K, h', w'] of any size.
        image: normalized, [1, 3, H, W].
        window: (height, width); what exceeds the image is cropped.
        stride: (rows, columns) between windows, at most the window.

    Returns:
        [1, K, H, W].
    """
    if min(window) < 1 or not all(1 <= s <= w for s, w in zip(stride, window, strict=True)):
        raise ValueError(
            f"window must be above 0, stride from 1 to the window; got {window} and {stride}"
        )
    height, width = image.shape[-2:]
    total = count = None
    for top in window_starts(height, window[0], stride[0]):
        for left in window_starts(width, window[1], stride[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            part = image[..., rows, columns]
            logits = F.interpolate(
                logits_of(part), size=part.shape[-2:], mode="bilinear", align_corners=True
            )
            if total is None or count is None:
                total = logits.new_zeros(1, logits.shape[1], height, width)
                count = logits.new_zeros(1, 1, height, width)
            total[..., rows, columns] += logits
            count[..., rows, columns] += 1
    assert total is not None and count is not None
    return total / count
