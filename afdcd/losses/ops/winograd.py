"""conv3x3 by Winograd's F(4x4, 3x3): a quarter of the multiplications, the same values.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308). The map is
cut into tiles of 6x6 that overlap by 2; each gives 4x4 outputs. A tile, a kernel and a product
have 36 points in the transformed domain, and between them the convolution is 36 matrix products.
Every transform is a product with a small matrix (the Kronecker square of a 1-D transform), and the
backward pass is its adjoint, step by step.

In float32 its rounding error is some ten times that of the direct sum (about 6e-6 of the largest
output), so it is no choice below float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from afdcd.losses.precision import no_autocast

# Output channels transformed at once (in the backward pass, input channels), and 6x6 tiles held at
# once: bounds on the buffers.
CHANNEL_CHUNK = 128
GRADIENT_CHUNK = 32
TILE_CHUNK = 512

# 1-D transforms: of the data [6, 6], the kernel [6, 3] and the product [4, 6].
_DATA = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_PRODUCT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


def winograd_conv3x3(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, padding: int = 1
) -> torch.Tensor:
    """conv3x3 of a map.

    Autocast doesn't reach it. Can be differentiated once.

    Args:
        x: [N, C, H, W], float32 or float64.
        weight: [C', C, 3, 3]; bias: [C'].
        padding: 1, or 0 for the positions whose neighbours are all on the map.

    Returns:
        [N, C', H, W] (less 2 rows and columns without padding), in ``channels_last`` format.
    """
    result: torch.Tensor = _Winograd.apply(x, weight, bias, padding)
    return result


def _square(rows: tuple[tuple[float, ...], ...], like: torch.Tensor) -> torch.Tensor:
    """The 2-D transform of a 1-D one: its Kronecker product with itself."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).to(like)


def _images(count: int, tiles: int) -> int:
    """Images of so many tiles to handle at once."""
    return max(1, min(count, TILE_CHUNK // tiles))


def _grid(height: int, width: int, padding: int) -> tuple[int, int, int, int]:
    """Rows and columns of the output, and of its 4x4 tiles."""
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    return rows, columns, -(-rows // 4), -(-columns // 4)


def _data(x: torch.Tensor, padding: int) -> torch.Tensor:
    """The transformed tiles [36, T, C] of a map [N, C, H, W]."""
    n, channels, height, width = x.shape
    _, _, down, right = _grid(height, width, padding)
    padded = x.new_zeros(n, 4 * down + 2, 4 * right + 2, channels)
    inside = padded[:, padding : padding + height, padding : padding + width]
    inside[:] = x.permute(0, 2, 3, 1)
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4)  # [N, down, right, C, 6, 6]
    tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    return (_square(_DATA, x) @ tiles).view(36, n * down * right, channels)


def _data_adjoint(tiles: torch.Tensor, shape: torch.Size, padding: int) -> torch.Tensor:
    """The adjoint of `_data`: [36, T, C] to a map of ``shape`` in channels_last format."""
    n, channels, height, width = shape
    _, _, down, right = _grid(height, width, padding)
    tiles = (_square(_DATA, tiles).t() @ tiles.flatten(1)).view(6, 6, n, down, right, channels)
    blocks = tiles.new_zeros(n, down + 1, 4, right + 1, 4, channels)
    # Of a tile's 6x6, 4x4 lie in its own block, the rest in those below and to the right.
    for row, rows in ((0, 4), (4, 2)):
        for column, columns in ((0, 4), (4, 2)):
            part = tiles[row : row + rows, column : column + columns].permute(2, 3, 0, 4, 1, 5)
            there = blocks[:, row // 4 :, :rows, column // 4 :, :columns]
            there[:, :down, :, :right] += part
    padded = blocks.view(n, 4 * down + 4, 4 * right + 4, channels)
    inside = padded[:, padding : padding + height, padding : padding + width]
    return inside.permute(0, 3, 1, 2)


def _kernels(weight: torch.Tensor) -> torch.Tensor:
    """The transformed kernels [36, c, C] of a weight [c, C, 3, 3]."""
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_square(_KERNEL, weight) @ taps).view(36, weight.shape[0], weight.shape[1])


def _kernels_adjoint(points: torch.Tensor) -> torch.Tensor:
    """The adjoint of `_kernels`: [36, c, C] to [c, C, 3, 3]."""
    _, outputs, inputs = points.shape
    taps = _square(_KERNEL, points).t() @ points.flatten(1)
    return taps.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int
    ) -> torch.Tensor:
        n, _, height, width = x.shape
        outputs = weight.shape[0]
        rows, columns, down, right = _grid(height, width, padding)
        out = x.new_empty(n, rows, columns, outputs)
        step = _images(n, down * right)
        with no_autocast(x):
            product = _square(_PRODUCT, x)
            for image in range(0, n, step):
                part = x[image : image + step]
                data = _data(part, padding)
                whole = x.new_empty(len(part), 4 * down, 4 * right, outputs)
                cut = whole.view(len(part), down, 4, right, 4, outputs)
                for start in range(0, outputs, CHANNEL_CHUNK):
                    kernels = _kernels(weight[start : start + CHANNEL_CHUNK])
                    points = torch.bmm(data, kernels.transpose(1, 2))
                    tiles = (product @ points.flatten(1)).view(4, 4, len(part), down, right, -1)
                    cut[..., start : start + CHANNEL_CHUNK] = tiles.permute(2, 3, 0, 4, 1, 5)
                out[image : image + step] = whole[:, :rows, :columns]
            out += bias
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = upstream[0]
        n, _, height, width = x.shape
        outputs = weight.shape[0]
        rows, columns, down, right = _grid(height, width, ctx.padding)
        pad = (0, 0, 0, -columns % 4, 0, -rows % 4)
        d_x = torch.empty_like(x, memory_format=torch.channels_last)
        d_weight = (
            torch.empty_like(weight, memory_format=torch.channels_last)
            if ctx.needs_input_grad[1]
            else None
        )
        step = _images(n, down * right)
        with no_autocast(x):
            product = _square(_PRODUCT, x).t()
            for image in range(0, n, step):
                part = x[image : image + step]
                count = len(part) * down * right
                whole = F.pad(gradient[image : image + step].permute(0, 2, 3, 1), pad)
                cut = whole.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(2, 4, 0, 1, 3, 5)
                # Of all that is transformed, this alone is held whole.
                d_points = x.new_empty(36, count, outputs)
                for start in range(0, outputs, CHANNEL_CHUNK):
                    chunk = slice(start, start + CHANNEL_CHUNK)
                    tiles = cut[..., chunk].reshape(16, -1)
                    d_points[..., chunk] = (product @ tiles).view(36, count, -1)
                for start in range(0, x.shape[1], GRADIENT_CHUNK):
                    chunk = slice(start, start + GRADIENT_CHUNK)
                    some = part[:, chunk]
                    d_data = torch.bmm(d_points, _kernels(weight[:, chunk]))
                    d_x[image : image + step, chunk] = _data_adjoint(
                        d_data, some.shape, ctx.padding
                    )
                    if d_weight is not None:
                        d_kernels = torch.bmm(d_points.transpose(1, 2), _data(some, ctx.padding))
                        d_taps = _kernels_adjoint(d_kernels)
                        if image:
                            d_weight[:, chunk] += d_taps
                        else:
                            d_weight[:, chunk] = d_taps
            d_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return d_x, d_weight, d_bias, None
