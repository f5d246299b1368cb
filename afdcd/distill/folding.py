"""Normalization folded into the convolutions before it."""

from __future__ import annotations

import torch
from torch import nn

STATISTICS = ("weight", "bias", "running_mean", "running_var")


def fold_norms(model: nn.Module) -> int:
    """Fold, in place, every convolution's own ``norm`` into its weight and bias.

    A convolution owns its normalization as in Detectron2 and `afdcd.models`. Normalizations with
    fixed statistics (BatchNorm, SyncBatchNorm, FrozenBatchNorm) are folded: in evaluation the model
    gives the same values, except for rounding. Training it further makes no sense.

    Returns:
        the number of normalizations folded.
    """
    count = 0
    for module in model.modules():
        norm = getattr(module, "norm", None)
        if not isinstance(module, nn.Conv2d) or isinstance(module, nn.ConvTranspose2d):
            continue
        if norm is None or any(getattr(norm, name, None) is None for name in STATISTICS):
            continue
        with torch.no_grad():
            # In float64: a variance near zero makes a large factor.
            scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            shift = norm.bias.double() - norm.running_mean.double() * scale
            if module.bias is not None:
                shift += module.bias.double() * scale
            weight = module.weight.double() * scale.view(-1, 1, 1, 1)
            module.weight.copy_(weight)
            module.bias = nn.Parameter(shift.to(module.weight.dtype), requires_grad=False)
        module.norm = nn.Identity().eval()
        count += 1
    return count
