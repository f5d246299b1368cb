"""conv3x3 by the library's own convolution, its weight's gradient perhaps computed late."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from afdcd.losses.ops.late import LateGradient, Slot
from afdcd.losses.precision import autocast_dtype, no_autocast


def direct_conv3x3(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    padding: int = 1,
    late: LateGradient | None = None,
) -> torch.Tensor:
    """conv3x3 of a map.

    In autocast's precision where autocast is on; the weight is cast anew in the backward pass, so
    that no copy of it is kept. Can be differentiated once.

    Args:
        x: [N, C, H, W].
        weight: [C', C, 3, 3]; bias: [C'].
        padding: 1, or 0 for the positions whose neighbours are all on the map.
        late: of ``weight``, where its gradient is to come late.

    Returns:
        [N, C', H, W] (less 2 rows and columns without padding).
    """
    if (dtype := autocast_dtype(x)) is not None:
        x, bias = x.to(dtype), bias.to(dtype)
    late = late or LateGradient(weight)
    with no_autocast(x):
        result: torch.Tensor = _Direct.apply(x, late.weight, late.token, bias, padding, late.slot)
    return result


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        token: torch.Tensor,
        bias: torch.Tensor,
        padding: int,
        slot: Slot,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.slot = padding, slot
        return F.conv2d(x, weight.to(x.dtype), bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = upstream[0]
        needs_x, _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        if needs_weight:
            ctx.slot.put(partial(_weight_gradient, x, weight, gradient, ctx.padding))
        d_x = d_bias = None
        with no_autocast(x):
            if needs_x:
                d_x = conv2d_input(x.shape, weight.to(x.dtype), gradient, padding=ctx.padding)
            if needs_bias:
                d_bias = gradient.sum((0, 2, 3))
        return d_x, None, weight.new_zeros(()), d_bias, None, None


def _weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: int
) -> torch.Tensor:
    with no_autocast(x):
        return conv2d_weight(x, weight.shape, gradient, padding=padding).to(weight.dtype)
