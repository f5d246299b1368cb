"""The projectors that regenerate the teacher's feature map from the masked student's."""

from __future__ import annotations

import torch
from torch import nn

PROJECTOR_KINDS = ("plain", "enhanced")


def _conv3x3(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=3, padding=1)


class PlainProjector(nn.Sequential):
    """conv3x3, ReLU, conv3x3, all ``channels`` wide and with bias; keeps the shape [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(_conv3x3(channels), nn.ReLU(), _conv3x3(channels))


class EnhancedProjector(nn.Module):
    """Two conv-ReLU blocks in a row, each with an adaptor convolution; the adaptors' mean.

    ``a = relu(conv(x)); b = relu(conv(a)); out = (conv(a) + conv(b)) / 2``, all convolutions 3x3,
    ``channels`` wide and with bias; keeps the shape [N, C, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = nn.Sequential(_conv3x3(channels), nn.ReLU())
        self.block_2 = nn.Sequential(_conv3x3(channels), nn.ReLU())
        self.adaptor_1 = _conv3x3(channels)
        self.adaptor_2 = _conv3x3(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.block_1(x)
        second = self.block_2(first)
        return (self.adaptor_1(first) + self.adaptor_2(second)) / 2


def check_projector_kind(kind: str) -> None:
    """Raise ValueError unless ``kind`` is one of `PROJECTOR_KINDS`."""
    if kind not in PROJECTOR_KINDS:
        raise ValueError(f"projector must be one of {', '.join(PROJECTOR_KINDS)}; got {kind!r}")


def build_projector(kind: str, channels: int) -> PlainProjector | EnhancedProjector:
    """Build the projector named ``kind`` (see `PROJECTOR_KINDS`) for ``channels`` channels."""
    check_projector_kind(kind)
    return PlainProjector(channels) if kind == "plain" else EnhancedProjector(channels)


def build_align(student_channels: int, teacher_channels: int) -> nn.Module:
    """The 1x1 convolution (with bias) that brings the student to the teacher's channels.

    The identity where the channels agree.
    """
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
