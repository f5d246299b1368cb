"""A conv3x3 made of three functions, its weight's gradient perhaps computed late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from afdcd.losses.afdcd.kernels.late import LateGradient, Slot
from afdcd.losses.precision import no_autocast

Compute = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


class Ways(NamedTuple):
    """How a convolution is computed; autocast is off.

    Attributes:
        output: of map, weight, bias and padding.
        map_gradient, weight_gradient: of map, weight, the output's gradient and padding.
    """

    output: Compute
    map_gradient: Compute
    weight_gradient: Compute


def late_conv(
    ways: Ways,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    padding: int,
    late: LateGradient | None,
) -> torch.Tensor:
    """Convolve a map [N, C, H, W] with a weight [C', C, 3, 3], perhaps of another precision.

    Can be differentiated once.
    """
    late = late or LateGradient(weight)
    with no_autocast(x):
        result: torch.Tensor = _LateConv.apply(
            x, late.weight, late.token, bias, padding, ways, late.slot
        )
    return result


class _LateConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        token: torch.Tensor,
        bias: torch.Tensor,
        padding: int,
        ways: Ways,
        slot: Slot,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.ways, ctx.slot = padding, ways, slot
        return ways.output(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        ways, padding, gradient = ctx.ways, ctx.padding, upstream[0]
        needs_x, _, needs_weight, needs_bias, *_ = ctx.needs_input_grad

        def weight_gradient() -> torch.Tensor:
            with no_autocast(x):
                return ways.weight_gradient(x, weight, gradient, padding).to(weight.dtype)

        if needs_weight:
            ctx.slot.put(weight_gradient)
        with no_autocast(x):
            d_x = ways.map_gradient(x, weight, gradient, padding) if needs_x else None
            d_bias = gradient.sum((0, 2, 3)) if needs_bias else None
        return d_x, None, weight.new_zeros(()), d_bias, None, None, None
