"""Align, hide and project, along the fastest exact path.

`masked_projection` (in `reconstruction`) is the definition. Here the align convolution sees the
kept positions only, the projector's first convolution is a `masked_conv3x3`, and the others
may go by `winograd_conv3x3`. Values and gradients are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from afdcd.losses.afdcd.kernels.direct_conv import direct_conv3x3
from afdcd.losses.afdcd.kernels.late import LateGradient
from afdcd.losses.afdcd.kernels.masked_conv import masked_conv3x3
from afdcd.losses.afdcd.kernels.winograd import winograd_conv3x3
from afdcd.losses.afdcd.projector import EnhancedProjector, PlainProjector
from afdcd.losses.afdcd.reconstruction import check_mask, masked_projection
from afdcd.losses.precision import autocast_dtype
from afdcd.utils.memory_format import in_device_format

CHOICES = ("auto", "always", "never")
# "auto": above this kept share the dense convolution is as fast.
MASKED_MOST_KEPT = 0.5
# "auto": below these the transforms of a Winograd convolution cost more than they save.
WINOGRAD_LEAST_CHANNELS = 256
WINOGRAD_LEAST_POSITIONS = 2048

Projector = PlainProjector | EnhancedProjector
# By convolution of the projector.
Late = Mapping[nn.Module, LateGradient]


@dataclass(frozen=True)
class ProjectionPaths:
    """How the projection is computed, whatever its values.

    Attributes:
        masked: whether the first convolution is computed at the kept positions only: ``auto``
            (where at most half are kept), ``always`` or ``never``.
        winograd: whether the others go by Winograd's F(4x4, 3x3): ``auto`` (on a CPU, in float32,
            where the map is large and wide enough), ``always`` or ``never``. In float32 it rounds
            some ten times as coarsely as the direct sum; under autocast ``always`` keeps these
            convolutions in float32.
        recompute: keep no activation of the projector for the backward pass, but compute them
            again there (activation checkpointing).

    Raises:
        ValueError: a choice that doesn't exist.
    """

    masked: str = "auto"
    winograd: str = "auto"
    recompute: bool = False

    def __post_init__(self) -> None:
        for name in ("masked", "winograd"):
            if (choice := getattr(self, name)) not in CHOICES:
                raise ValueError(f"{name} must be one of {', '.join(CHOICES)}; got {choice!r}")


def project(
    student: torch.Tensor,
    *,
    align: nn.Module,
    mask: torch.Tensor,
    projector: Projector,
    paths: ProjectionPaths,
    late: Late | None = None,
) -> torch.Tensor:
    """The same map as `masked_projection` gives.

    Args:
        student: [N, Cs, H, W].
        align: as `build_align` makes it.
        mask: [N, 1, H, W], 1 = kept, 0 = hidden. Best on the CPU: where it is on another device,
            this waits for it to count the kept positions. Other values than 0 and 1 take the
            dense way.
        projector: as `build_projector` makes it.
        paths: how.
        late: see `late_gradients`.

    Raises:
        ValueError: the mask's shape is not [N, 1, H, W] of the student's.
    """
    check_mask(mask, student)
    places = mask.flatten().nonzero()[:, 0]
    most = len(places) > MASKED_MOST_KEPT * mask.numel()
    soft = bool((mask.flatten()[places] != 1).any())
    if paths.masked == "never" or (paths.masked == "auto" and most) or soft:
        first = _first(projector)

        def hidden(student: torch.Tensor) -> torch.Tensor:
            map_ = masked_projection(student, align=align, mask=mask)
            return conv3x3(map_, first, paths=paths, late=late)

    else:
        places = to_device(places, student.device)
        n, _, height, width = student.shape

        def hidden(student: torch.Tensor) -> torch.Tensor:
            rows = align_rows(rows_of(student).index_select(0, places), align)
            return first_conv(rows, places, projector, size=(n, height, width), late=late)

    def run(student: torch.Tensor) -> torch.Tensor:
        # Without a name for what ReLU is given, which would keep it alive.
        return finish(F.relu(hidden(student)), projector, paths=paths, late=late)

    return maybe_recompute(run, student, paths)


def project_blocks(
    student: torch.Tensor,
    *,
    align: nn.Module,
    mask: torch.Tensor,
    projector: Projector,
    paths: ProjectionPaths,
    flat: torch.Tensor,
    inside: torch.Tensor,
    late: Late | None = None,
) -> torch.Tensor:
    """Pieces of the map that `project` gives, computed from what they see of the student's.

    Args:
        student, align, projector, paths, late: see `project`.
        mask: [N, 1, H, W] of 0 and 1, on the CPU.
        flat, inside: of the pieces with their halo, [B, h + 2 halo, w + 2 halo], on the CPU: see
            `afdcd.losses.afdcd.patches.positions`.

    Returns:
        [B, C, h, w]; of no meaning where not inside the map.
    """
    kept = inside & (mask.flatten()[flat] != 0)
    places = kept.flatten().nonzero()[:, 0]
    source = to_device(flat.flatten()[places], student.device)
    places = to_device(places, student.device)
    on_map = to_device(inside[:, None, 1:-1, 1:-1].float(), student.device)
    size = (len(flat), flat.shape[1], flat.shape[2])

    def run(student: torch.Tensor) -> torch.Tensor:
        rows = align_rows(rows_of(student).index_select(0, source), align)
        hidden = first_conv(rows, places, projector, size=size, padding=0, late=late)
        first = _within(F.relu(hidden), on_map)
        del hidden
        return finish(first, projector, paths=paths, inside=on_map, late=late)

    return maybe_recompute(run, student, paths)


def maybe_recompute(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, paths: ProjectionPaths
) -> torch.Tensor:
    """Call a function; where ``paths.recompute``, again in the backward pass."""
    if not paths.recompute or not torch.is_grad_enabled():
        return function(x)
    return cast(torch.Tensor, checkpoint(function, x, use_reentrant=False))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the CPU without waiting for the device."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def rows_of(features: torch.Tensor) -> torch.Tensor:
    """The positions [N * H * W, C] of a map [N, C, H, W]."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


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
    late: Late | None = None,
) -> torch.Tensor:
    """The projector's first convolution of the map that holds ``rows`` at ``places``."""
    conv = _first(projector)
    return masked_conv3x3(
        rows,
        places,
        conv.weight,
        _bias(conv),
        size=size,
        padding=padding,
        late=_late_of(conv, late),
    )


def finish(
    first: torch.Tensor,
    projector: Projector,
    *,
    paths: ProjectionPaths,
    inside: torch.Tensor | None = None,
    late: Late | None = None,
) -> torch.Tensor:
    """The projector after its first convolution and ReLU.

    Args:
        first: [N, C, H, W], what these give; 0 where not ``inside``.
        projector: which.
        paths: how.
        inside: [N, 1, H, W] where maps are pieces of a larger one, 0 where they reach over its
            edge; then the convolutions don't pad, and each takes off a position on all sides.
        late: see `project`.
    """
    conv = partial(conv3x3, padding=1 if inside is None else 0, paths=paths, late=late)
    if isinstance(projector, PlainProjector):
        return conv(first, _conv(projector[2]))
    second = F.relu(conv(first, _conv(projector.block_2[0])))
    if inside is not None:
        first = first[:, :, 1:-1, 1:-1]
        second = _within(second, inside[:, :, 1:-1, 1:-1])
    return (conv(first, projector.adaptor_1) + conv(second, projector.adaptor_2)) / 2


def late_gradients(projector: Projector) -> Late:
    """Have the weight gradients of one forward pass computed late: see `LateGradient`.

    Call this before the student's forward pass, and give the result to the projection.
    """
    convolutions = [m for m in projector.modules() if isinstance(m, nn.Conv2d)]
    return {conv: LateGradient(conv.weight) for conv in convolutions}


def halo(projector: Projector) -> int:
    """How far, in positions, the projector sees."""
    return 2 if isinstance(projector, PlainProjector) else 3


def conv3x3(
    x: torch.Tensor,
    conv: nn.Conv2d,
    *,
    paths: ProjectionPaths,
    padding: int = 1,
    late: Late | None = None,
) -> torch.Tensor:
    """A dense conv3x3, by Winograd or directly."""
    x = in_device_format(x)
    operation: Callable[..., torch.Tensor] = direct_conv3x3
    if _use_winograd(x, conv, paths):
        operation, x = winograd_conv3x3, x.to(conv.weight.dtype)
    return operation(x, conv.weight, _bias(conv), padding=padding, late=_late_of(conv, late))


def _use_winograd(x: torch.Tensor, conv: nn.Conv2d, paths: ProjectionPaths) -> bool:
    if paths.winograd != "auto":
        return paths.winograd == "always"
    n, _, height, width = x.shape
    return (
        x.device.type == "cpu"
        and autocast_dtype(x) is None
        and x.dtype in (torch.float32, torch.float64)
        and min(conv.in_channels, conv.out_channels) >= WINOGRAD_LEAST_CHANNELS
        and n * height * width >= WINOGRAD_LEAST_POSITIONS
    )


def _within(x: torch.Tensor, inside: torch.Tensor | None) -> torch.Tensor:
    return x if inside is None else x * inside.to(x)


def _late_of(conv: nn.Conv2d, late: Late | None) -> LateGradient | None:
    return late[conv] if late else None


def _first(projector: Projector) -> nn.Conv2d:
    return _conv(projector[0] if isinstance(projector, PlainProjector) else projector.block_1[0])


def _conv(module: nn.Module) -> nn.Conv2d:
    return cast(nn.Conv2d, module)


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    return cast(torch.Tensor, conv.bias)
