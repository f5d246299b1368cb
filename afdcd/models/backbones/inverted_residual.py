"""The block of mobile networks, and how their channels are scaled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.layers import ConvNorm, Norm


def scaled_channels(channels: int, width_mult: float, divisor: int = 8) -> int:
    """``channels * width_mult`` rounded to a multiple of 8, never down by more than 10 %."""
    scaled = channels * width_mult
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


class SqueezeExcite(nn.Module):
    """Every channel times a factor from 0 to 1, which two conv1x1 make of the channels' means.

    As in MobileNetV3 (arXiv 1905.02244): the hidden layer has a quarter of the channels, rounded to
    a multiple of 8, and the factor is a hard sigmoid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = scaled_channels(channels // 4, 1.0)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(hidden))


class InvertedResidual(nn.Module):
    """Expanding conv1x1, depthwise convolution, projecting conv1x1 without activation.

    The input is added where ``residual`` is set and the channels allow. Where ``hidden_channels``
    are the input's, there is no expanding convolution.

    Args:
        in_channels, hidden_channels, out_channels: of the input, the depthwise convolution, the
            output.
        kernel_size, stride, dilation: of the depthwise convolution.
        residual: whether the input is added.
        squeeze: whether the depthwise convolution is followed by a `SqueezeExcite`.
        activation: after the first two convolutions.
        depthwise: class of the depthwise convolution.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        residual: bool = True,
        squeeze: bool = False,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.relu6,
        depthwise: type[ConvNorm] = ConvNorm,
        norm: Norm = "BN",
    ) -> None:
        super().__init__()
        self.residual = residual and in_channels == out_channels
        self.expand = (
            ConvNorm(in_channels, hidden_channels, 1, norm=norm, activation=activation)
            if hidden_channels != in_channels
            else None
        )
        self.depthwise = depthwise(
            hidden_channels,
            hidden_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=hidden_channels,
            norm=norm,
            activation=activation,
        )
        self.squeeze_excite = SqueezeExcite(hidden_channels) if squeeze else None
        self.project = ConvNorm(hidden_channels, out_channels, 1, norm=norm, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.depthwise(x if self.expand is None else self.expand(x))
        if self.squeeze_excite is not None:
            hidden = self.squeeze_excite(hidden)
        out = self.project(hidden)
        return x + out if self.residual else out
