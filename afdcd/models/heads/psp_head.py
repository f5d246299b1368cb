"""The PSPNet head: pyramid pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.heads.registry import HEADS
from afdcd.models.heads.segmentation_head import SegmentationHead, upsample
from afdcd.models.layers import ConvNorm, Norm, ShapeSpec, normalizes_batch


class PyramidPooling(nn.Module):
    """The input concatenated with its means over grids of 1, 2, 3 and 6 cells, each with a conv1x1.

    Each of the four has a quarter of the input's channels, so the output has twice as many.
    """

    def __init__(
        self, in_channels: int, *, grids: Sequence[int] = (1, 2, 3, 6), norm: Norm = "BN"
    ) -> None:
        super().__init__()
        self.grids = tuple(grids)
        width = in_channels // 4
        self.convs = nn.ModuleList(ConvNorm(in_channels, width, 1, norm=norm) for _ in grids)
        self.out_channels = in_channels + width * len(self.grids)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] to [N, out_channels, h, w]."""
        if x.shape[0] == 1 and normalizes_batch(self.convs):
            raise ValueError(
                "PSPNet's image pooling normalizes over the batch, so training takes at least 2 "
                "images per GPU; got 1: raise SOLVER.IMS_PER_BATCH, or take fewer parts "
                "(SOLVER.ACCUMULATE)"
            )
        size = (x.shape[-2], x.shape[-1])
        branches = [x]
        for grid, conv in zip(self.grids, self.convs, strict=True):
            branches.append(upsample(conv(F.adaptive_avg_pool2d(x, grid)), size))
        return torch.cat(branches, dim=1)


@HEADS.register("PSPHead")
class PSPHead(SegmentationHead):
    """PSPNet (arXiv 1612.01105) as in the published networks.

    Args:
        hidden_channels: of the fusing convolution: a quarter of the input's channels for the
            published ResNets, 128 for MobileNetV2.
        **head: see `SegmentationHead`.
    """

    POOLS_IMAGES = True

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: str,
        num_classes: int,
        hidden_channels: int = 128,
        norm: Norm = "BN",
        **head: Any,
    ) -> None:
        pyramid = PyramidPooling(input_shape[in_features].channels, norm=norm)
        super().__init__(
            input_shape,
            in_features=in_features,
            num_classes=num_classes,
            context_channels=pyramid.out_channels,
            hidden_channels=hidden_channels,
            norm=norm,
            **head,
        )
        self.pyramid = pyramid

    def context(self, x: torch.Tensor) -> torch.Tensor:
        return self.pyramid(x)
