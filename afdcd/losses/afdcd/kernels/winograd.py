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

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels.late import LateGradient
from afdcd.losses.afdcd.kernels.late_conv import Ways, late_conv

# Channels transformed at once (of weights in the backward pass: GRADIENT_CHUNK), and 6x6 tiles held
# at once: bounds on the buffers.
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
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    padding: int = 1,
    late: LateGradient | None = None,
) -> torch.Tensor:
    """conv3x3 of a map.

    Autocast doesn't reach it. Can be differentiated once.

    Args:
        x: [N, C, H, W], float32 or float64.
        weight: [C', C, 3, 3]; bias: [C'].
        padding: 1, or 0 for the positions whose neighbours are all on the map.
        late: of ``weight``, where its gradient is to come late.

    Returns:
        [N, C', H, W] (less 2 rows and columns without padding), in ``channels_last`` format.
    """
    return late_conv(_WAYS, x, weight, bias, padding=padding, late=late)


def _square(rows: tuple[tuple[float, ...], ...], like: torch.Tensor) -> torch.Tensor:
    """The 2-D transform of a 1-D one: its Kronecker product with itself."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).to(like)


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
    tiles = tiles.permute(4, 5, 0, 1, 2, 3)
    matrix = _square(_DATA, x)
    points = x.new_empty(36, n * down * right, channels)
    for start in range(0, channels, CHANNEL_CHUNK):
        chunk = slice(start, start + CHANNEL_CHUNK)
        some = tiles[..., chunk].reshape(36, -1)
        points[..., chunk] = (matrix @ some).view(36, n * down * right, -1)
    return points


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


def _product(data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Transformed tiles [36, T, C] times a weight [c, C, 3, 3]: 4x4 outputs each, [16, T, c]."""
    points = torch.bmm(data, _kernels(weight).transpose(1, 2))
    return (_square(_PRODUCT, data) @ points.flatten(1)).view(16, *points.shape[1:])


def _output(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int
) -> torch.Tensor:
    n, _, height, width = x.shape
    outputs = weight.shape[0]
    rows, columns, down, right = _grid(height, width, padding)
    out = x.new_empty(n, 4 * down, 4 * right, outputs)
    for images in _portions(x, padding):
        data = _data(x[images], padding)
        cut = out[images].view(-1, down, 4, right, 4, outputs)
        for start in range(0, outputs, CHANNEL_CHUNK):
            chunk = slice(start, start + CHANNEL_CHUNK)
            tiles = _product(data, weight[chunk])
            cut[..., chunk] = tiles.view(4, 4, -1, down, right, tiles.shape[-1]).permute(
                2, 3, 0, 4, 1, 5
            )
    out += bias
    return out[:, :rows, :columns].permute(0, 3, 1, 2)


def _map_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: int
) -> torch.Tensor:
    d_x = torch.empty_like(x, memory_format=torch.channels_last)
    for images in _portions(x, padding):
        d_points = _points(gradient[images])
        for start in range(0, x.shape[1], GRADIENT_CHUNK):
            chunk = slice(start, start + GRADIENT_CHUNK)
            d_data = torch.bmm(d_points, _kernels(weight[:, chunk]))
            there = d_x[images, chunk]
            there.copy_(_data_adjoint(d_data, there.shape, padding))
    return d_x


def _weight_gradient(
    x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, padding: int
) -> torch.Tensor:
    d_weight = torch.empty_like(weight, memory_format=torch.channels_last)
    for images in _portions(x, padding):
        d_points = _points(gradient[images]).transpose(1, 2)
        for start in range(0, x.shape[1], GRADIENT_CHUNK):
            chunk = slice(start, start + GRADIENT_CHUNK)
            d_kernels = torch.bmm(d_points, _data(x[images, chunk], padding))
            d_taps = _kernels_adjoint(d_kernels)
            if images.start:
                d_weight[:, chunk] += d_taps
            else:
                d_weight[:, chunk] = d_taps
    return d_weight


def _portions(x: torch.Tensor, padding: int) -> Iterator[slice]:
    """The images to handle at once."""
    _, _, down, right = _grid(x.shape[2], x.shape[3], padding)
    step = max(1, TILE_CHUNK // (down * right))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _points(gradient: torch.Tensor) -> torch.Tensor:
    """The adjoint of the product's transform: an output's gradient to [36, T, C'].

    Of all that is transformed, this alone is held whole.
    """
    rows, columns = gradient.shape[2:]
    whole = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, -columns % 4, 0, -rows % 4))
    n, height, width, outputs = whole.shape
    count = n * (height // 4) * (width // 4)
    cut = whole.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(2, 4, 0, 1, 3, 5)
    product = _square(_PRODUCT, gradient).t()
    d_points = gradient.new_empty(36, count, outputs)
    for start in range(0, outputs, CHANNEL_CHUNK):
        chunk = slice(start, start + CHANNEL_CHUNK)
        d_points[..., chunk] = (product @ cut[..., chunk].reshape(16, -1)).view(36, count, -1)
    return d_points


_WAYS = Ways(_output, _map_gradient, _weight_gradient)
