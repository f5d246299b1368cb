"""The precision that the losses are computed in, whatever autocast or the inputs say."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` in float32, or as it is when it is float64.

    An L1 sum over 128 channels divided by a temperature of 0.07 overflows float16, and the
    reconstruction sums over a whole feature map: both need float32 at least.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Switch autocast off for the operations on ``tensor``'s device."""
    return torch.autocast(tensor.device.type, enabled=False)
