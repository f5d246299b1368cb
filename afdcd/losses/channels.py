"""The 1x1 convolution that brings the student to the teacher's channels."""

from __future__ import annotations

import torch
from torch import nn


class ChannelProjection(nn.Conv2d):
    """1x1 convolution [N, Cs, h, w] -> [N, Ct, h, w] in front of a loss that ignores constants.

    It has no bias: the losses that use it are unchanged by a constant added to a channel (they
    take a softmax over its positions, or subtract its mean), so a bias would never get a gradient.

    Args:
        student_channels, teacher_channels: Cs and Ct.

    Raises:
        ValueError: at the call, for a map that doesn't have Cs channels.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, kernel_size=1, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(
                f"the loss was built for a student map [N, {self.in_channels}, h, w]; got shape "
                f"{tuple(input.shape)}. Build it for the maps that it is given (from_taps)"
            )
        if not torch.is_autocast_enabled(input.device.type):
            # Half inputs outside autocast would meet float32 weights and fail there.
            input = input.to(self.weight.dtype)
        return super().forward(input)
