"""conv3x3 by the library's own convolution, its weight's gradient perhaps computed late."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from afdcd.losses.afdcd.kernels.late import LateGradient
from afdcd.losses.afdcd.kernels.late_conv import Ways, late_conv
from afdcd.losses.precision import autocast_dtype


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
    return late_conv(_WAYS, x, weight, bias, padding=padding, late=late)


def _output(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int
) -> torch.Tensor:
    return F.conv2d(x, weight.to(x.dtype), bias, padding=padding)


def _map_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: int
) -> torch.Tensor:
    return conv2d_input(x.shape, weight.to(x.dtype), gradient, padding=padding)


def _weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: int
) -> torch.Tensor:
    return conv2d_weight(x, weight.shape, gradient, padding=padding)


_WAYS = Ways(_output, _map_gradient, _weight_gradient)
