"""A teacher's logits, averaged over scales and mirror images of its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

Item = dict[str, Any]
Run = Callable[[list[Item]], torch.Tensor]


def averaged_logits(
    run: Run,
    items: Sequence[Item],
    *,
    scales: Sequence[float],
    flip: bool,
    align_corners: bool = False,
) -> torch.Tensor:
    """The mean of a network's logits [N, K, H, W] over scaled and mirrored images.

    Args:
        run: from samples to logits [N, K, h, w]; called once for each scale, and with ``flip`` once
            more.
        items: samples whose images [3, H, W] are of one size.
        scales: factors of the images' sides; maps are brought to the size of the map at scale 1
            bilinearly.
        flip: whether mirrored images join them.
        align_corners: how the network's head resizes its logits.
    """
    shape = run(list(items[:1])).shape[-2:] if 1.0 not in scales else None
    total, count = None, 0
    for scale in sorted(scales, key=lambda s: s != 1.0):  # 1 first: its size is the others'
        for mirrored in (False, True) if flip else (False,):
            logits = run([_changed(item, scale, mirrored) for item in items]).float()
            shape = shape or logits.shape[-2:]
            if logits.shape[-2:] != shape:
                logits = F.interpolate(
                    logits, size=shape, mode="bilinear", align_corners=align_corners
                )
            if mirrored:
                logits = logits.flip(-1)
            total = logits if total is None else total + logits
            count += 1
    assert total is not None
    return total / count


def _changed(item: Item, scale: float, mirrored: bool) -> Item:
    image = item["image"]
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[
            0
        ]
    return {**item, "image": image.flip(-1) if mirrored else image}


def to_grid(
    features: torch.Tensor, seen: tuple[int, int], student: tuple[int, int]
) -> torch.Tensor:
    """A teacher's map of an image of its own resolution, averaged down to the student's grid.

    Args:
        features: [N, C, H, W].
        seen: height and width of the image that the teacher saw.
        student: of the one that the student sees.

    Returns:
        [N, C, h, w], of the size that the teacher's map of the student's image would have; resized
        bilinearly where that is larger.
    """
    if seen == student:
        return features
    size = [
        max(1, round(side * small / large))
        for side, small, large in zip(features.shape[-2:], student, seen, strict=True)
    ]
    if size[0] <= features.shape[-2] and size[1] <= features.shape[-1]:
        return F.interpolate(features, size=size, mode="area")
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
