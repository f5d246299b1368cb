"""The precision in which the losses are computed, whatever autocast or the inputs' type."""

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


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """The type in which autocast would compute a convolution of ``tensor``, None where none.

    Operations of our own, which autocast doesn't know, use it to follow autocast.
    """
    kind = tensor.device.type
    # As in autocast itself, float64 is left alone.
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(kind)
