"""Multi-scale and flipped inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F


def multiscale_logits(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> torch.Tensor:
    """Raw logits of an image, averaged over scales and, with ``flip``, over its mirror image.

    As in the published release: each scale's image has ``floor(scale * n)`` rows and columns, the
    raw logits are resized to the full size and averaged, bilinearly with ``align_corners=True``
    throughout.

    Args:
        logits_of: maps a normalized image [1, 3, h, w] to logits [1, K, h', w'] of any size.
        image: normalized, [1, 3, H, W].
        scales: factors of both sides.
        flip: whether each scale's logits are averaged with those of the mirrored image.

    Returns:
        [1, K, H, W].
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be factors above 0; got {list(scales)}")
    height, width = image.shape[-2:]

    def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    total = None
    for scale in scales:
        scaled = resize(image, (int(height * scale), int(width * scale)))
        logits = resize(logits_of(scaled), (height, width))
        if flip:
            mirrored = resize(logits_of(scaled.flip(-1)), (height, width)).flip(-1)
            logits = (logits + mirrored) / 2
        total = logits if total is None else total + logits
    assert total is not None
    return total / len(scales)
