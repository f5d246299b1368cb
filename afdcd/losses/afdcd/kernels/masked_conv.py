"""conv3x3 of a map most of whose positions are zero, computed at the others only.

A zero position contributes nothing to any output, so the products of the kept rows with the nine
taps, each added where it belongs, are the whole convolution: K rows instead of N * H * W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from afdcd.losses.precision import autocast_dtype, no_autocast

TAPS = tuple((row, column) for row in range(3) for column in range(3))


def masked_conv3x3(
    rows: torch.Tensor,
    places: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    size: tuple[int, int, int],
) -> torch.Tensor:
    """conv3x3 of the map that holds ``rows`` at ``places`` and zeros elsewhere.

    Products are summed over the taps in float32 at least. In autocast's precision where autocast
    is on. Can be differentiated once. Fastest with a weight in ``channels_last`` format.

    Args:
        rows: [K, C], the kept positions' values.
        places: int64 [K], each row's flat position ``(n * H + y) * W + x``; all different.
        weight: [C', C, 3, 3].
        bias: [C'].
        size: N, H and W.

    Returns:
        [N, C', H, W], in ``channels_last`` format, which is that of the matrix products here; none
        of PyTorch's convolutions runs in it. On a CPU the caller makes it contiguous before one
        does (`afdcd.utils.memory_format`).
    """
    if (dtype := autocast_dtype(rows)) is not None:
        rows, bias = rows.to(dtype), bias.to(dtype)
    n, height, width = size
    with no_autocast(rows):
        targets = destinations(places, size)
        flat: torch.Tensor = _MaskedConv.apply(rows, weight, bias, targets, n * height * width)
    return flat.view(n, height, width, -1).permute(0, 3, 1, 2)


def destinations(places: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Where each tap sends each row.

    Returns:
        flat positions of the output, int64 [9, K]; off the map, its number of positions.
    """
    n, height, width = size
    image = places // (height * width)
    y, x = places // width % height, places % width
    result = places.new_empty(len(TAPS), len(places))
    for tap, (row, column) in enumerate(TAPS):
        # An output at (y, x) sees the input at (y + row - 1, x + column - 1).
        down, right = y + 1 - row, x + 1 - column
        on_map = (down >= 0) & (down < height) & (right >= 0) & (right < width)
        flat = (image * height + down) * width + right
        result[tap] = torch.where(on_map, flat, n * height * width)
    return result


def _tap(weight: torch.Tensor, row: int, column: int, dtype: torch.dtype) -> torch.Tensor:
    """[C', C] of one tap, rows contiguous: a view of a weight of ``dtype`` in channels_last."""
    tap = weight[:, :, row, column].to(dtype)
    return tap if tap.stride(1) == 1 else tap.contiguous()


class _MaskedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        positions: int,
    ) -> torch.Tensor:
        wide = torch.promote_types(rows.dtype, torch.float32)
        # The last row takes what falls off the map.
        out = bias.to(wide).expand(positions + 1, -1).contiguous()
        for tap, (row, column) in enumerate(TAPS):
            product = rows @ _tap(weight, row, column, rows.dtype).t()
            out.index_add_(0, targets[tap], product.to(wide))
        ctx.save_for_backward(rows, weight, targets)
        return out[:-1].to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, targets = ctx.saved_tensors
        gradient = upstream[0]
        needs_rows, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        with no_autocast(rows):
            d_rows = _rows_gradient(rows, weight, targets, gradient) if needs_rows else None
            d_weight = _weight_gradient(rows, weight, targets, gradient) if needs_weight else None
            d_bias = gradient.sum(0) if needs_bias else None
        return d_rows, d_weight, d_bias, None, None


def _gather(gradient: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The gradient [K, C'] where a tap sends each row, zero off the map."""
    off_map = targets == len(gradient)
    rows = gradient.index_select(0, targets.clamp(max=len(gradient) - 1))
    return rows.masked_fill_(off_map[:, None], 0)


def _rows_gradient(
    rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    wide = torch.promote_types(rows.dtype, torch.float32)
    d_rows = torch.zeros_like(rows, dtype=wide)
    for tap, (row, column) in enumerate(TAPS):
        d_rows += _gather(gradient, targets[tap]) @ _tap(weight, row, column, rows.dtype)
    return d_rows.to(rows.dtype)


def _weight_gradient(
    rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    d_weight = torch.empty_like(weight)
    for tap, (row, column) in enumerate(TAPS):
        d_weight[:, :, row, column] = _gather(gradient, targets[tap]).t() @ rows
    return d_weight
