"""Align, hide and project, along the fastest exact path.

`masked_projection` (in `reconstruction`) is the definition. Where few positions are kept, the align
convolution sees these only, and the projector's first convolution is a `masked_conv3x3`. Values and
gradients are the same except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

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
    recompute: bool = False,
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
        recompute: keep no activation of the projector for the backward pass, but compute them
            again there (activation checkpointing).

    Raises:
        ValueError: the mask's shape is not [N, 1, H, W] of the student's.
    """
    check_mask(mask, student)
    places = mask.flatten().nonzero()[:, 0]
    mostly_kept = len(places) > MASKED_MAX_KEPT * mask.numel()
    soft = bool((mask.flatten()[places] != 1).any())
    if masked_conv == "never" or (masked_conv == "auto" and mostly_kept) or soft:
        dense = partial(masked_projection, align=align, mask=mask, projector=projector)
        return maybe_recompute(dense, student, recompute=recompute)
    places = to_device(places, student.device)
    n, _, height, width = student.shape

    def run(student: torch.Tensor) -> torch.Tensor:
        rows = align_rows(rows_of(student).index_select(0, places), align)
        # ReLU's input has no name of its own, which would keep it in memory.
        first = F.relu(first_conv(rows, places, projector, size=(n, height, width)))
        return finish(first, projector)

    return maybe_recompute(run, student, recompute=recompute)


def project_blocks(
    student: torch.Tensor,
    *,
    align: nn.Module,
    mask: torch.Tensor,
    projector: Projector,
    flat: torch.Tensor,
    inside: torch.Tensor,
    recompute: bool = False,
) -> torch.Tensor:
    """Pieces of the map that `project` gives, computed from the student's positions they depend on.

    Args:
        student, align, projector, recompute: see `project`.
        mask: [N, 1, H, W] of 0 and 1, on the CPU.
        flat, inside: positions of the pieces with their halo, [B, h + 2 halo, w + 2 halo], on the
            CPU: see `afdcd.losses.afdcd.patches.positions`.

    Returns:
        [B, C, h, w]; meaningless off the map.
    """
    kept = inside & (mask.flatten()[flat] != 0)
    places = kept.flatten().nonzero()[:, 0]
    source = to_device(flat.flatten()[places], student.device)
    places = to_device(places, student.device)
    on_map = to_device(inside[:, None, 1:-1, 1:-1].float(), student.device)
    size = (len(flat), flat.shape[1], flat.shape[2])

    def run(student: torch.Tensor) -> torch.Tensor:
        rows = align_rows(rows_of(student).index_select(0, source), align)
        first = _within(F.relu(first_conv(rows, places, projector, size=size, padding=0)), on_map)
        return finish(first, projector, inside=on_map)

    return maybe_recompute(run, student, recompute=recompute)


def maybe_recompute(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, recompute: bool
) -> torch.Tensor:
    """Call a function; with ``recompute``, call it again in the backward pass."""
    if not recompute or not torch.is_grad_enabled():
        return function(x)
    return cast(torch.Tensor, checkpoint(function, x, use_reentrant=False))


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
    padding: int = 1,
) -> torch.Tensor:
    """The projector's first convolution of the map that holds ``rows`` at ``places``."""
    first = projector[0] if isinstance(projector, PlainProjector) else projector.block_1[0]
    conv = cast(nn.Conv2d, first)
    bias = cast(torch.Tensor, conv.bias)
    # Before ReLU, so that what ReLU keeps is what the next convolution keeps.
    return in_device_format(
        masked_conv3x3(rows, places, conv.weight, bias, size=size, padding=padding)
    )


def finish(
    first: torch.Tensor, projector: Projector, *, inside: torch.Tensor | None = None
) -> torch.Tensor:
    """The projector after its first convolution and ReLU.

    Args:
        first: [N, C, H, W], the output of these; 0 where not ``inside``.
        projector: as `build_projector` makes it.
        inside: [N, 1, H, W] where maps are pieces of a larger one, 0 where they reach over its
            edge; then the convolutions don't pad, and each removes a position on every side.
    """
    conv = partial(_conv3x3, padding=1 if inside is None else 0)
    if isinstance(projector, PlainProjector):
        return conv(first, projector[2])
    second = F.relu(conv(first, projector.block_2[0]))
    if inside is not None:
        first = first[:, :, 1:-1, 1:-1]
        second = _within(second, inside[:, :, 1:-1, 1:-1])
    return (conv(first, projector.adaptor_1) + conv(second, projector.adaptor_2)) / 2


def halo(projector: Projector) -> int:
    """How far, in positions, the projector sees."""
    return 2 if isinstance(projector, PlainProjector) else 3


def _conv3x3(x: torch.Tensor, conv: nn.Module, *, padding: int) -> torch.Tensor:
    """Apply a convolution with a padding other than its own."""
    conv = cast(nn.Conv2d, conv)
    return F.conv2d(x, conv.weight, conv.bias, padding=padding)


def _within(x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return x * inside.to(x)
