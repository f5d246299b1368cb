"""MobileNetV3, large and small, dilated, in the stages res2 to res5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.inverted_residual import InvertedResidual, scaled_channels
from afdcd.models.backbones.mobile import MobileBackbone, check_width
from afdcd.models.backbones.registry import BACKBONES
from afdcd.models.backbones.staged import STAGES
from afdcd.models.layers import (
    ConvNorm,
    Norm,
    init_convolutions,
    normalize_as_in_tensorflow,
    stage_dilations,
)

STEM_CHANNELS = 16
# What LR-ASPP sees besides res5: the output of res3's first block.
LOW_LEVEL = "res3.0"


class Block(NamedTuple):
    """A line of the paper's tables, at width 1."""

    kernel_size: int
    hidden_channels: int
    out_channels: int
    squeeze: bool
    hard_swish: bool


# arXiv 1905.02244, tables 1 and 2. The large network's first block belongs to the stem.
LARGE_STEM = Block(3, 16, 16, False, False)
STAGE_BLOCKS: dict[str, dict[str, tuple[Block, ...]]] = {
    "large": {
        "res2": (Block(3, 64, 24, False, False), Block(3, 72, 24, False, False)),
        "res3": (Block(5, 72, 40, True, False), *2 * (Block(5, 120, 40, True, False),)),
        "res4": (
            Block(3, 240, 80, False, True),
            Block(3, 200, 80, False, True),
            *2 * (Block(3, 184, 80, False, True),),
            Block(3, 480, 112, True, True),
            Block(3, 672, 112, True, True),
        ),
        "res5": (Block(5, 672, 160, True, True), *2 * (Block(5, 960, 160, True, True),)),
    },
    "small": {
        "res2": (Block(3, 16, 16, True, False),),
        "res3": (Block(3, 72, 24, False, False), Block(3, 88, 24, False, False)),
        "res4": (
            Block(5, 96, 40, True, True),
            *2 * (Block(5, 240, 40, True, True),),
            Block(5, 120, 48, True, True),
            Block(5, 144, 48, True, True),
        ),
        "res5": (Block(5, 288, 96, True, True), *2 * (Block(5, 576, 96, True, True),)),
    },
}
# Of the convolution that ends res5, in times the channels before it.
LAST_EXPANSION = 6


def build_block(
    block: Block,
    in_channels: int,
    width_mult: float,
    *,
    stride: int = 1,
    dilation: int = 1,
    residual: bool = True,
    norm: Norm = "BN",
) -> InvertedResidual:
    """The module of a line of the tables."""
    return InvertedResidual(
        in_channels,
        scaled_channels(block.hidden_channels, width_mult),
        scaled_channels(block.out_channels, width_mult),
        kernel_size=block.kernel_size,
        stride=stride,
        dilation=dilation,
        residual=residual,
        squeeze=block.squeeze,
        activation=F.hardswish if block.hard_swish else F.relu,
        norm=norm,
    )


class MobileNetV3Stem(nn.Module):
    """conv3x3 of stride 2 and, in the large network, one block without expansion."""

    def __init__(self, size: str, width_mult: float, norm: Norm) -> None:
        super().__init__()
        self.out_channels = scaled_channels(STEM_CHANNELS, width_mult)
        self.conv = ConvNorm(3, self.out_channels, 3, stride=2, norm=norm, activation=F.hardswish)
        self.block = (
            build_block(LARGE_STEM, self.out_channels, width_mult, norm=norm)
            if size == "large"
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if self.block is None else self.block(x)


class Stage(nn.Sequential):
    """Blocks in a row. The first one's output is put into ``maps``, where given, as ``res3.0``."""

    def forward(self, x: torch.Tensor, maps: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        for index, block in enumerate(self):
            x = block(x)
            if index == 0 and maps is not None:
                maps[LOW_LEVEL] = x
        return x


@BACKBONES.register("build_dilated_mobilenetv3_backbone")
class MobileNetV3(MobileBackbone):
    """MobileNetV3 (arXiv 1905.02244) with the last convolution before its classifier.

    That convolution ends res5 (960 channels for large, 576 for small, at width 1). Where a stage
    loses its stride, its first block is dilated like the others, as in torchvision, whose
    segmentation weights were trained so. (In this package's other backbones the first block keeps
    the dilation of the stage before.)

    Args:
        size: ``large`` or ``small``.
        width_mult: factor of every number of channels (then rounded to multiples of 8).
        output_stride: of res5: 8, 16 (as in torchvision's LR-ASPP) or 32.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        out_features: what `forward` returns: stages, and ``res3.0`` for the output of res3's first
            block, which torchvision's LR-ASPP takes.

    Raises:
        ValueError: an unknown size or output stride, or ``width_mult`` not above 0.
    """

    NODE = "MOBILENETV3"

    # Of torchvision's weights: RGB, in 0..255.
    pixel_mean = (123.675, 116.28, 103.53)
    pixel_std = (58.395, 57.12, 57.375)

    def __init__(
        self,
        size: str = "large",
        *,
        width_mult: float = 1.0,
        output_stride: int = 8,
        norm: Norm = "BN",
        out_features: Sequence[str] = ("res5",),
    ) -> None:
        super().__init__()
        if size not in STAGE_BLOCKS:
            raise ValueError(
                f"size (MODEL.MOBILENETV3.SIZE) must be {' or '.join(STAGE_BLOCKS)}; got {size!r}"
            )
        check_width(width_mult)
        stem = MobileNetV3Stem(size, width_mult, norm)
        self.stem = stem
        in_channels = stem.out_channels
        channels = {}
        for stage, (stride, _, dilation) in stage_dilations(output_stride).items():
            blocks: list[nn.Module] = []
            for block in STAGE_BLOCKS[size][stage]:
                starts_stage = not blocks
                blocks.append(
                    build_block(
                        block,
                        in_channels,
                        width_mult,
                        # The stem has stride 2 here, so res2 takes the other 2 of the first 4.
                        stride=(2 if stage == "res2" else stride) if starts_stage else 1,
                        dilation=dilation,
                        # Its stride may be dilated away, but no checkpoint was trained with a
                        # shortcut there.
                        residual=not starts_stage,
                        norm=norm,
                    )
                )
                in_channels = scaled_channels(block.out_channels, width_mult)
            if stage == STAGES[-1]:
                last = LAST_EXPANSION * in_channels
                blocks.append(ConvNorm(in_channels, last, 1, norm=norm, activation=F.hardswish))
                in_channels = last
            self.add_module(stage, Stage(*blocks))
            channels[stage] = in_channels
        init_convolutions(self)
        normalize_as_in_tensorflow(self)
        channels[LOW_LEVEL] = channels["res3"]  # all blocks of a stage's resolution have as many
        self.finish(channels, output_stride=output_stride, out_features=out_features)

    def run_stage(self, stage: str, x: torch.Tensor, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        keeps = stage == "res3" and LOW_LEVEL in self.out_features
        return getattr(self, stage)(x, maps) if keeps else getattr(self, stage)(x)
