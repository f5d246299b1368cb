"""EfficientNet-Lite0 to 4, dilated, in the stages res2 to res5."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.inverted_residual import InvertedResidual, scaled_channels
from afdcd.models.backbones.mobile import MobileBackbone, check_width
from afdcd.models.backbones.registry import BACKBONES
from afdcd.models.layers import (
    Norm,
    SameConvNorm,
    init_convolutions,
    normalize_as_in_tensorflow,
    stage_dilations,
)

# Factors of channels and of blocks.
VARIANTS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
EXPANSION = 6
STEM_CHANNELS, FIRST_CHANNELS = 32, 16
# (kernel size, channels, blocks) of EfficientNet-B0's groups of blocks: arXiv 1905.11946, table 1.
STAGE_BLOCKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "res2": ((3, 24, 2),),
    "res3": ((5, 40, 2),),
    "res4": ((3, 80, 3), (5, 112, 3)),
    "res5": ((5, 192, 4), (3, 320, 1)),
}
# In the Lite networks the first and the last group have one block each, whatever the factor.
LAST_CHANNELS = 320


def block_count(channels: int, count: int, variant: int) -> int:
    """How many blocks a group of ``STAGE_BLOCKS`` has in a variant."""
    return count if channels == LAST_CHANNELS else math.ceil(count * VARIANTS[variant][1])


class EfficientNetLiteStem(nn.Module):
    """conv3x3 of stride 2 and one inverted residual block without expansion."""

    def __init__(self, first: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = SameConvNorm(3, first, 3, stride=2, norm=norm, activation=F.relu6)
        self.block = InvertedResidual(first, first, out_channels, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.conv(x))


@BACKBONES.register("build_dilated_efficientnet_lite_backbone")
class EfficientNetLite(MobileBackbone):
    """EfficientNet-Lite (of arXiv 1905.11946) without its last 1x1 convolution.

    EfficientNet for small devices: ReLU6 in place of swish, no squeeze-and-excitation, and the
    stem, the first and the last block don't grow with the variant. Padding is TensorFlow's "same".
    res5 ends in a linear projection (320 channels in variant 0): its values can be negative.

    Args:
        variant: 0 to 4.
        width_mult: a further factor of every number of channels, that of the stem too; 1 for the
            published networks.
        output_stride: of res5: 8, 16 or 32.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        out_features: the stages returned by `forward`.

    Raises:
        ValueError: an unknown variant or output stride, or ``width_mult`` not above 0.
    """

    NODE = "EFFICIENTNET_LITE"

    # Of the public weights, in 0..255; the same for red, green and blue.
    pixel_mean = (127.5, 127.5, 127.5)
    pixel_std = (127.5, 127.5, 127.5)

    def __init__(
        self,
        variant: int = 0,
        *,
        width_mult: float = 1.0,
        output_stride: int = 8,
        norm: Norm = "BN",
        out_features: Sequence[str] = ("res5",),
    ) -> None:
        super().__init__()
        if not 0 <= variant < len(VARIANTS):
            raise ValueError(
                f"variant (MODEL.EFFICIENTNET_LITE.VARIANT) must be from 0 to "
                f"{len(VARIANTS) - 1}; got {variant}"
            )
        check_width(width_mult)
        width = VARIANTS[variant][0] * width_mult
        in_channels = scaled_channels(FIRST_CHANNELS, width)
        stem_channels = scaled_channels(STEM_CHANNELS, width_mult)
        self.stem = EfficientNetLiteStem(stem_channels, in_channels, norm)
        channels = {}
        for stage, (stride, first, rest) in stage_dilations(output_stride).items():
            blocks: list[nn.Module] = []
            for kernel_size, base_channels, count in STAGE_BLOCKS[stage]:
                out_channels = scaled_channels(base_channels, width)
                for number in range(block_count(base_channels, count, variant)):
                    starts_stage = not blocks
                    # The stem has stride 2 here, so res2 takes the other 2 of the first 4.
                    block_stride = (2 if stage == "res2" else stride) if starts_stage else 1
                    blocks.append(
                        InvertedResidual(
                            in_channels,
                            EXPANSION * in_channels,
                            out_channels,
                            kernel_size=kernel_size,
                            stride=block_stride,
                            dilation=first if starts_stage else rest,
                            # At small widths a group may begin with as many channels as the last
                            # one ended with; no group's first block has a shortcut.
                            residual=number > 0,
                            depthwise=SameConvNorm,
                            norm=norm,
                        )
                    )
                    in_channels = out_channels
            self.add_module(stage, nn.Sequential(*blocks))
            channels[stage] = in_channels
        init_convolutions(self)
        normalize_as_in_tensorflow(self)
        self.finish(channels, output_stride=output_stride, out_features=out_features)
