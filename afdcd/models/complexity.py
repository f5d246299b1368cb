"""Parameters and multiply-adds of a model."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, without buffers (such as BatchNorm's statistics)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of one image's evaluation, of convolutions and matrix products.

    Counted by PyTorch's flop counter (2 FLOP per multiply-add) on the meta device, so nothing is
    computed; what evaluation skips, such as an auxiliary head, doesn't count.

    Args:
        model: in Detectron2's protocol; left as it was.
        height, width: of the image.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(3, height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta([{"image": image, "height": height, "width": width}])
    return counter.get_total_flops() // 2
