"""ResNet-18, -50 and -101, dilated, under Detectron2's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.registry import BACKBONES
from afdcd.models.backbones.staged import StagedBackbone
from afdcd.models.layers import ConvNorm, Norm, init_convolutions, stage_dilations

# Blocks of res2 to res5, and whether they are bottlenecks.
DEPTHS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
STEMS = ("deeplab", "basic")
BOTTLENECK_EXPANSION = 4


class BasicStem(nn.Module):
    """conv7x7 of stride 2 and a 3x3 max-pooling of stride 2."""

    def __init__(self, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class DeepStem(nn.Module):
    """Three conv3x3, the first of stride 2, and a 3x3 max-pooling of stride 2.

    The first two are half as wide as the third, as in the published networks and in Detectron2's
    ``DeepLabStem``.
    """

    def __init__(self, out_channels: int, norm: Norm) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvNorm(3, half, 3, stride=2, norm=norm)
        self.conv2 = ConvNorm(half, half, 3, norm=norm)
        self.conv3 = ConvNorm(half, out_channels, 3, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.shortcut = (
            ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, activation=None)
            if stride != 1 or in_channels != out_channels
            else None
        )

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.residual(x) + shortcut)


class BasicBlock(_ResidualBlock):
    """Two conv3x3. The first uses ``first_dilation``, the second ``dilation``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
        norm: Norm = "BN",
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = ConvNorm(
            in_channels, out_channels, 3, stride=stride, dilation=first_dilation, norm=norm
        )
        self.conv2 = ConvNorm(
            out_channels, out_channels, 3, dilation=dilation, norm=norm, activation=None
        )

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x))


class BottleneckBlock(_ResidualBlock):
    """conv1x1, conv3x3 (with the stride and ``first_dilation``), conv1x1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
        norm: Norm = "BN",
    ) -> None:
        del dilation  # there is one 3x3 convolution only
        super().__init__(in_channels, out_channels, stride, norm)
        width = out_channels // BOTTLENECK_EXPANSION
        self.conv1 = ConvNorm(in_channels, width, 1, norm=norm)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, dilation=first_dilation, norm=norm)
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm, activation=None)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


@BACKBONES.register("build_dilated_resnet_backbone")
class ResNet(StagedBackbone):
    """ResNet (arXiv 1512.03385) with the stride in the 3x3 convolutions and dilated late stages.

    Args:
        depth: 18, 34, 50 or 101.
        output_stride: of res5: 8 (published), 16 or 32.
        stem: ``deeplab`` (three 3x3 convolutions, published) or ``basic`` (one 7x7, as in
            torchvision's and timm's ImageNet weights).
        stem_channels: output of the stem; by default 128 (deeplab) or 64 (basic).
        res2_channels: output of res2, doubled by each further stage; by default 64 for depths 18
            and 34, 256 for the others.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        out_features: the stages returned by `forward`.

    Raises:
        ValueError: unknown depth, stem or output stride.
    """

    def __init__(
        self,
        depth: int,
        *,
        output_stride: int = 8,
        stem: str = "deeplab",
        stem_channels: int | None = None,
        res2_channels: int | None = None,
        norm: Norm = "BN",
        out_features: Sequence[str] = ("res4", "res5"),
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}; got {depth}")
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {stem!r}")
        blocks, bottleneck = DEPTHS[depth]
        if stem_channels is None:
            stem_channels = 128 if stem == "deeplab" else 64
        if res2_channels is None:
            res2_channels = 256 if bottleneck else 64
        block_type = BottleneckBlock if bottleneck else BasicBlock

        self.stem = (DeepStem if stem == "deeplab" else BasicStem)(stem_channels, norm)
        channels, in_channels, out_channels = {}, stem_channels, res2_channels
        for count, (stage, (stride, first, rest)) in zip(
            blocks, stage_dilations(output_stride).items(), strict=True
        ):
            layers: list[nn.Module] = []
            for index in range(count):
                layers.append(
                    block_type(
                        in_channels,
                        out_channels,
                        stride=stride if index == 0 else 1,
                        first_dilation=first if index == 0 else rest,
                        dilation=rest,
                        norm=norm,
                    )
                )
                in_channels = out_channels
            self.add_module(stage, nn.Sequential(*layers))
            channels[stage] = out_channels
            out_channels *= 2
        init_convolutions(self)
        self.finish(channels, output_stride=output_stride, out_features=out_features)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Constructor arguments from ``MODEL.RESNETS`` and ``MODEL.BACKBONE``."""
        resnets, backbone = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE
        return {
            "depth": resnets.DEPTH,
            "output_stride": backbone.OUTPUT_STRIDE,
            "stem": resnets.STEM_TYPE,
            "stem_channels": resnets.STEM_OUT_CHANNELS,
            "res2_channels": resnets.RES2_OUT_CHANNELS,
            "norm": resnets.NORM,
            "out_features": tuple(resnets.OUT_FEATURES),
        }
