"""What low precision costs: errors of features, losses and gradients, on given weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afdcd.distill import Distiller, FeatureTaps
from afdcd.distill.encoding import Encoding
from afdcd.distill.targets import Target
from afdcd.engine.precision import autocast
from afdcd.engine.settings import PrecisionSettings

# As SOLVER.AMP.DTYPE; "float32" for no autocast.
PRECISIONS = ("float32", "bfloat16", "float16")
# The teacher's targets stored and read again, everything else in float32.
RECORDED = {f"recorded {dtype}": Encoding(dtype) for dtype in ("float16", "int8")}


def precision_errors(model: Distiller, batch: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Relative deviations from a step in float64, by quantity and precision.

    The same weights, images and masks in every precision; dropout off, normalizations as in
    training. Two more columns are float32 with the teacher's targets recorded. A deviation is
    |x - x64| / |x64|, in the L2 norm for tensors.

    Args:
        model: with realistic weights: random ones say little.
        batch: as a loader gives it.

    Returns:
        e.g. ``{"teacher backbone.res5": {"float32": 1e-6, "bfloat16": 0.01, ...}, ...}``.
    """
    exact = _quantities(model, batch, "float64")
    rows: dict[str, dict[str, float]] = {name: {} for name in exact}
    for precision in (*PRECISIONS, *RECORDED):
        quantities = _quantities(model, batch, precision)
        for name, value in exact.items():
            difference = (quantities[name].double() - value).norm() / value.norm().clamp(min=1e-300)
            rows[name][precision] = float(difference)
    return rows


def _stored(
    encoding: Encoding, targets: Sequence[Target], maps: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Maps by target, as they are read from a record."""
    return {
        target.name: torch.stack(
            [
                encoding.decode(target, len(item), encoding.encode(target, item))
                for item in maps[target.name]
            ]
        )
        for target in targets
    }


def train_without_dropout(model: nn.Module) -> None:
    """Set training mode without dropout, so that two steps differ only in what is compared."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


def _quantities(
    model: Distiller, batch: list[dict[str, Any]], precision: str
) -> dict[str, torch.Tensor]:
    low = precision in ("bfloat16", "float16")
    settings = PrecisionSettings(enabled=low, dtype=precision if low else "float16")
    model = copy.deepcopy(model)
    if precision == "float64":
        model = model.double()
        batch = [{**item, "image": item["image"].double()} for item in batch]
    train_without_dropout(model)
    device = next(model.parameters()).device
    objectives = model.distiller
    quantities: dict[str, torch.Tensor] = {}
    with autocast(settings, device):
        teacher = model.targets(batch, objectives.targets)
        if precision in RECORDED:
            teacher = _stored(RECORDED[precision], objectives.targets, teacher)
        with FeatureTaps(model.student, objectives.student_taps) as taps:
            losses = dict(model.student(batch))
        student = {path: taps[path] for path in objectives.student_taps}
        losses |= objectives(student, teacher)
    for path, value in teacher.items():
        quantities[f"teacher's {path}"] = value
    for path, value in student.items():
        quantities[f"student's {path}"] = value.detach()
    for name, value in losses.items():
        quantities[name] = value.detach()
    total = torch.stack([value.to(losses["loss_sem_seg"].dtype) for value in losses.values()]).sum()
    # As a gradient scaler would, so that float16's gradients don't vanish.
    scale = 2.0**12 if precision == "float16" else 1.0
    (total * scale).backward()
    for name, module in (("student", model.student), ("align and projector", objectives)):
        gradients = [p.grad.flatten() / scale for p in module.parameters() if p.grad is not None]
        quantities[f"gradient of {name}"] = torch.cat(gradients)
    return quantities
