"""SGD or AdamW, from Detectron2's ``SOLVER`` keys and those that its projects share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from afdcd.distill import Distiller
from afdcd.engine.settings import OptimizerSettings

NORM_TYPES = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def build_optimizer(settings: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over all trainable parameters, those of equal settings in one group.

    ``WEIGHT_DECAY_NORM`` goes to normalization layers, ``WEIGHT_DECAY_BIAS`` (if set) and
    ``BIAS_LR_FACTOR`` to biases, as in Detectron2; ``BACKBONE_MULTIPLIER`` to the learning rate of
    the model's ``backbone``, as in Mask2Former; ``MODEL.DISTILLER.LR_FACTOR`` to a distiller's
    align and projector. Groups hold ``lr_factor``, which `set_lr` multiplies the schedule by.
    """
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter, module in _trainable(model):
        decay, factor = settings.weight_decay, 1.0
        if isinstance(module, NORM_TYPES) and settings.weight_decay_norm is not None:
            decay = settings.weight_decay_norm
        elif name.endswith("bias"):
            factor = settings.bias_lr_factor
            if settings.weight_decay_bias is not None:
                decay = settings.weight_decay_bias
        if name.startswith("distiller."):
            factor *= settings.distiller_lr_factor
        elif name.removeprefix("student.").startswith("backbone."):
            factor *= settings.backbone_lr_factor
        groups.setdefault((decay, factor), []).append((name, parameter))
    options = [
        {
            "params": named,
            "weight_decay": decay,
            "lr": settings.base_lr * factor,
            "lr_factor": factor,
        }
        for (decay, factor), named in groups.items()
    ]
    # As PyTorch chooses: many tensors at once on a GPU, one by one on a CPU. Its fused update on a
    # CPU is wrong where a weight and its gradient lie differently in memory (channels_last).
    if settings.name == "ADAMW":
        return torch.optim.AdamW(options, lr=settings.base_lr)
    return torch.optim.SGD(
        options, lr=settings.base_lr, momentum=settings.momentum, nesterov=settings.nesterov
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


def clip_distiller(optimizer: torch.optim.Optimizer, model: nn.Module, norm: float) -> None:
    """Have every update clip a distiller's own gradients (align, projector), and no others, first.

    Args:
        optimizer: of the model.
        model: a plain model is left alone.
        norm: L2 norm of these gradients together that is not exceeded; 0 for no clipping.
    """
    if not isinstance(model, Distiller) or norm <= 0:
        return
    modules = list(model.distiller.parameters())

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(modules, norm)

    optimizer.register_step_pre_hook(clip)
