"""MobileNetV2, dilated, in the stages res2 to res5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.inverted_residual import InvertedResidual, scaled_channels
from afdcd.models.backbones.mobile import MobileBackbone, check_width
from afdcd.models.backbones.registry import BACKBONES
from afdcd.models.layers import ConvNorm, Norm, init_convolutions, stage_dilations

EXPANSION = 6
# (channels at width 1, blocks) of each resolution's groups of blocks: arXiv 1801.04381, table 2.
STAGE_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "res2": ((24, 2),),
    "res3": ((32, 3),),
    "res4": ((64, 4), (96, 3)),
    "res5": ((160, 3), (320, 1)),
}


class MobileNetV2Stem(nn.Module):
    """conv3x3 of stride 2 and one inverted residual block without expansion."""

    def __init__(self, width_mult: float, norm: Norm) -> None:
        super().__init__()
        first, self.out_channels = (scaled_channels(c, width_mult) for c in (32, 16))
        self.conv = ConvNorm(3, first, 3, stride=2, norm=norm, activation=F.relu6)
        self.block = InvertedResidual(first, first, self.out_channels, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.conv(x))


@BACKBONES.register("build_dilated_mobilenetv2_backbone")
class MobileNetV2(MobileBackbone):
    """MobileNetV2 (arXiv 1801.04381) without its last 1x1 convolution, late stages dilated.

    res5 ends in a linear projection (320 channels at width 1): its values can be negative.

    Args:
        width_mult: factor of every number of channels (then rounded to multiples of 8).
        output_stride: of res5: 8 (published), 16 or 32.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        out_features: the stages returned by `forward`.

    Raises:
        ValueError: ``width_mult`` not above 0, or an unknown output stride.
    """

    NODE = "MOBILENETV2"

    def __init__(
        self,
        *,
        width_mult: float = 1.0,
        output_stride: int = 8,
        norm: Norm = "BN",
        out_features: Sequence[str] = ("res5",),
    ) -> None:
        super().__init__()
        check_width(width_mult)
        stem = MobileNetV2Stem(width_mult, norm)
        self.stem = stem
        in_channels = stem.out_channels
        channels = {}
        for stage, (stride, first, rest) in stage_dilations(output_stride).items():
            blocks: list[nn.Module] = []
            for base_channels, count in STAGE_BLOCKS[stage]:
                out_channels = scaled_channels(base_channels, width_mult)
                for _ in range(count):
                    starts_stage = not blocks
                    # The stem has stride 2 here, so res2 takes the other 2 of the first 4.
                    block_stride = (2 if stage == "res2" else stride) if starts_stage else 1
                    blocks.append(
                        InvertedResidual(
                            in_channels,
                            EXPANSION * in_channels,
                            out_channels,
                            stride=block_stride,
                            dilation=first if starts_stage else rest,
                            # Its stride may be dilated away, but no checkpoint was trained with
                            # a shortcut there.
                            residual=not starts_stage,
                            norm=norm,
                        )
                    )
                    in_channels = out_channels
            self.add_module(stage, nn.Sequential(*blocks))
            channels[stage] = in_channels
        init_convolutions(self)
        self.finish(channels, output_stride=output_stride, out_features=out_features)
