"""Align, hide and project, along the fastest exact path.

`masked_projection` (in `reconstruction`) is the definition. Where few positions are kept, the align
convolution sees these only, and the projector's first convolution is a `masked_conv3x3`. Values and
gradients are the same except for rounding.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels.masked_conv import masked_conv3x3
from afdcd.losses.afdcd.projector import EnhancedProjector, PlainProjector
from afdcd.losses.afdcd.reconstruction import check_mask, masked_projection
from afdcd.utils.memory_format import in_device_format

MASKED_CONV_CHOICES = ("auto", "always", "never")
# "auto": where a larger share than this is kept, the dense convolution is as fast.
MASKED_MAX_KEPT = 0.5

Projector = PlainProjector | EnhancedProjector


def check_masked_conv(masked_conv: str) -> None:
    """Raise ValueError unless ``masked_conv`` is one of `MASKED_CONV_CHOICES`."""
    if masked_conv not in MASKED_CONV_CHOICES:
        raise ValueError(
            f"masked_conv must be one of {', '.join(MASKED_CONV_CHOICES)}; got {masked_conv!r}"
        )


def project(
    student: torch.Tensor,
    *,
    align: nn.Module,
    mask: torch.Tensor,
    projector: Projector,
    masked_conv: str = "auto",
) -> torch.Tensor:
    """The same map as `masked_projection` gives.

    Args:
        student: [N, Cs, H, W].
        align: as `build_align` makes it.
        mask: [N, 1, H, W], 1 = kept, 0 = hidden. Best on the CPU: counting the kept positions
            waits for any other device. Values other than 0 and 1 need the dense convolution.
        projector: as `build_projector` makes it.
        masked_conv: whether the first convolution is computed at the kept positions only: ``auto``
            (where at most half are kept), ``always`` or ``never``.

    Raises:
        ValueError: the mask's shape is not [N, 1, H, W] of the student's.
    """
    check_mask(mask, student)
    places = mask.flatten().nonzero()[:, 0]
    mostly_kept = len(places) > MASKED_MAX_KEPT * mask.numel()
    soft = bool((mask.flatten()[places] != 1).any())
    if masked_conv == "never" or (masked_conv == "auto" and mostly_kept) or soft:
        return masked_projection(student, align=align, mask=mask, projector=projector)
    places = to_device(places, student.device)
    n, _, height, width = student.shape
    rows = align_rows(rows_of(student).index_select(0, places), align)
    # ReLU's input has no name of its own, which would keep it in memory.
    first = F.relu(first_conv(rows, places, projector, size=(n, height, width)))
    return finish(first, projector)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the CPU without waiting for the device."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def rows_of(features: torch.Tensor) -> torch.Tensor:
    """The positions [N * H * W, C] of a map [N, C, H, W].

    The map's gradient is returned in its device's memory format, whatever else uses the map: a
    gradient laid out like the positions would make the student's last layers compute in that
    layout.
    """
    if features.requires_grad:
        features = _Formatted.apply(features)
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


class _Formatted(torch.autograd.Function):
    """The identity, with a gradient in its device's memory format."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return in_device_format(grad)


def align_rows(rows: torch.Tensor, align: nn.Module) -> torch.Tensor:
    """What the 1x1 convolution ``align`` makes of positions [K, Cs]: [K, Ct]."""
    if not isinstance(align, nn.Conv2d):
        return align(rows)
    return F.linear(rows, align.weight[:, :, 0, 0], align.bias)


def first_conv(
    rows: torch.Tensor,
    places: torch.Tensor,
    projector: Projector,
    *,
    size: tuple[int, int, int],
) -> torch.Tensor:
    """The projector's first convolution of the map that holds ``rows`` at ``places``."""
    first = projector[0] if isinstance(projector, PlainProjector) else projector.block_1[0]
    conv = cast(nn.Conv2d, first)
    bias = cast(torch.Tensor, conv.bias)
    # Before ReLU, so that what ReLU keeps is what the next convolution keeps.
    return in_device_format(masked_conv3x3(rows, places, conv.weight, bias, size=size))


def finish(first: torch.Tensor, projector: Projector) -> torch.Tensor:
    """The projector after its first convolution and ReLU, which gave ``first`` [N, C, H, W]."""
    if isinstance(projector, PlainProjector):
        return cast(torch.Tensor, projector[2](first))
    second = projector.block_2(first)
    return cast(torch.Tensor, (projector.adaptor_1(first) + projector.adaptor_2(second)) / 2)
