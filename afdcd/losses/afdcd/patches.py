"""Patch sampling: both losses on a random share of the patches, without bias.

The map is cut into blocks of one patch of the contrast each (pool * patch positions), those at the
bottom and right reaching over the edge where sizes don't divide. A fixed number of them is drawn
without replacement, all equally likely and the same number from each image (give or take one), cut
out with the projector's halo, and run as a batch. The sums over the drawn blocks, times
(blocks / drawn), have the whole map's sums as expectation, and so do their gradients. Taking the
same number from each image keeps the differences between images out of the variance (stratified
sampling), and gives processes that share a batch the same work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from afdcd.losses.afdcd.projection import to_device


class Blocks(NamedTuple):
    """Some blocks of a map; index tensors on the CPU.

    Attributes:
        image, row, column: int64 [B], which block of the grid each is.
        size: height and width of a block, in positions.
        shape: N, H and W of the map.
        factor: number of blocks in the whole batch, divided by the number drawn.
    """

    image: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    size: tuple[int, int]
    shape: tuple[int, int, int]
    factor: float


def check_sample(sample: float) -> None:
    """Raise ValueError unless ``sample`` is a share above 0 and at most 1."""
    if not 0.0 < sample <= 1.0:
        raise ValueError(f"sample is the share of patches that is evaluated, 0..1; got {sample}")


def draw_blocks(
    shape: tuple[int, int, int],
    size: tuple[int, int],
    *,
    share: float,
    generator: torch.Generator | None = None,
    part: tuple[int, int] = (0, 1),
) -> Blocks:
    """Draw ``share`` of the blocks of ``size`` of a batch of maps (at least one), in order.

    Args:
        shape: N, H and W of the map.
        size: height and width of a block.
        share: above 0, at most 1.
        generator: of the draw; the global CPU generator when None.
        part: which part of a batch the maps are, and of how many equal ones. Blocks are drawn from
            the whole batch; those that lie in the part are returned, perhaps none.
    """
    n, height, width = shape
    rows, columns = -(-height // size[0]), -(-width // size[1])
    images, per_image = part[1] * n, rows * columns
    drawn = max(1, round(share * images * per_image))
    device = generator.device if generator is not None else torch.device("cpu")
    order = torch.rand(images, per_image, generator=generator, device=device).argsort(1).cpu()
    gets_extra = torch.randperm(images, generator=generator, device=device).cpu() < drawn % images
    # From each image the blocks that come first in its own random order, by their rank in it.
    chosen = order.argsort(1) < (drawn // images + gets_extra.long())[:, None]
    image, block = chosen[part[0] * n : (part[0] + 1) * n].nonzero(as_tuple=True)
    factor = images * per_image / drawn
    return Blocks(image, block // columns, block % columns, size, shape, factor)


def positions(blocks: Blocks, halo: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each position of each block, and of a halo around it, lies on the map.

    Returns:
        flat positions int64 [B, h + 2 halo, w + 2 halo], 0 where off the map; and whether it is on
        the map, bool of the same shape. On the CPU.
    """
    _, height, width = blocks.shape
    h, w = blocks.size
    y = blocks.row[:, None] * h + torch.arange(-halo, h + halo)
    x = blocks.column[:, None] * w + torch.arange(-halo, w + halo)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    flat = (blocks.image[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    return torch.where(inside, flat, 0), inside


def block_features(features: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """The blocks [B, C, h, w] of a map [N, C, H, W], zero where they reach over its edge."""
    _, height, width = blocks.shape
    h, w = blocks.size
    padded = F.pad(features, (0, -width % w, 0, -height % h))
    split = padded.unflatten(3, (-1, w)).unflatten(2, (-1, h))  # [N, C, rows, h, columns, w]
    image, row, column = (to_device(i, features.device) for i in blocks[:3])
    return split[image, :, row, :, column]


def holds_patch(blocks: Blocks, patch: tuple[int, int], pool: int) -> torch.Tensor:
    """Which blocks hold a patch of the contrast: those on the map's patch grid. bool [B]."""
    _, height, width = blocks.shape
    return (blocks.row < height // pool // patch[0]) & (blocks.column < width // pool // patch[1])
