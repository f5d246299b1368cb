"""SGD, from Detectron2's ``SOLVER`` keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

NORM_TYPES = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.SGD:
    """SGD over all trainable parameters, those of equal settings in one group.

    ``WEIGHT_DECAY_NORM`` goes to normalization layers, ``WEIGHT_DECAY_BIAS`` (if set) and
    ``BIAS_LR_FACTOR`` to biases, as in Detectron2; ``MODEL.DISTILLER.LR_FACTOR`` to a distiller's
    align and projector. Groups hold ``lr_factor``, which `set_lr` multiplies the schedule by.
    """
    solver = cfg.SOLVER
    distilled = cfg.MODEL.META_ARCHITECTURE == "Distiller"
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter, module in _trainable(model):
        decay, factor = solver.WEIGHT_DECAY, 1.0
        if isinstance(module, NORM_TYPES) and solver.WEIGHT_DECAY_NORM is not None:
            decay = solver.WEIGHT_DECAY_NORM
        elif name.endswith("bias"):
            factor = solver.BIAS_LR_FACTOR
            decay = decay if solver.WEIGHT_DECAY_BIAS is None else solver.WEIGHT_DECAY_BIAS
        if distilled and name.startswith("distiller."):
            factor *= cfg.MODEL.DISTILLER.LR_FACTOR
        groups.setdefault((decay, factor), []).append((name, parameter))
    settings = [
        {
            "params": named,
            "weight_decay": decay,
            "lr": solver.BASE_LR * factor,
            "lr_factor": factor,
        }
        for (decay, factor), named in groups.items()
    ]
    # As PyTorch chooses: many tensors at once on a GPU, one by one on a CPU. Its fused update on a
    # CPU is wrong where a weight and its gradient lie differently in memory (channels_last).
    return torch.optim.SGD(
        settings, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
    )


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    seen = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{prefix}.{name}" if prefix else name, parameter, module


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group to ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
