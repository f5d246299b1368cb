"""What sampling patches costs: the variance that it adds to a step's gradient."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from afdcd.benchmark.errors import train_without_dropout
from afdcd.distill import Distiller
from afdcd.engine.precision import autocast
from afdcd.engine.settings import PrecisionSettings
from afdcd.losses import AfDCDLoss

Batch = list[dict[str, Any]]


def sampling_noise(
    precision: PrecisionSettings,
    model: Distiller,
    batches: Iterable[Batch],
    shares: Sequence[float],
) -> list[dict[str, Any]]:
    """How much a gradient varies from batch to batch, and how much more where patches are sampled.

    Batches differ in images, their augmentation and masks. A share's gradient is compared with that
    of all patches of the same batch under the same mask; dropout off, normalizations as in
    training. Variances are sums over all elements of a gradient. A gradient whose variance sampling
    makes ``v`` times as large is as noisy as that of a batch ``1 / v`` as large.

    Args:
        precision: of the forward passes.
        model: with weights from the course of a training run: random ones say little.
        batches: two or more; as a loader gives them.
        shares: of the patches, as the loss's setting ``SAMPLE``.

    Returns:
        rows of ``gradient of``, ``norm`` (of its mean), ``deviation`` (between batches, all
        patches) and, by share, ``variance, 0.25`` (as a multiple of that between batches).

    Raises:
        ValueError: fewer than two batches, or no Af-DCD loss.
    """
    model = copy.deepcopy(model)
    train_without_dropout(model)
    losses = [m for m in model.distiller.modules() if isinstance(m, AfDCDLoss)]
    if not losses:
        raise ValueError(
            "no Af-DCD loss, whose patches could be sampled: see MODEL.DISTILLER.LOSSES"
        )
    groups = {
        "student": list(model.student.parameters()),
        "align and projector": list(model.distiller.parameters()),
    }
    state = model.distiller.get_extra_state()
    count = 0
    sums: dict[str, torch.Tensor | float] = dict.fromkeys(groups, 0.0)
    squares = dict.fromkeys(groups, 0.0)
    added = {(name, share): 0.0 for name in groups for share in shares}
    for batch in batches:
        count += 1
        all_patches: dict[str, torch.Tensor] = {}
        for share in (1.0, *shares):
            # The same step, and so the same mask, which is drawn before the patches.
            model.distiller.set_extra_state({**state, "steps": state["steps"] + count})
            for loss in losses:
                loss.settings = dataclasses.replace(loss.settings, sample=share)
            for name, gradient in _gradients(precision, model, batch, groups).items():
                if share == 1:
                    all_patches[name] = gradient
                    sums[name] = sums[name] + gradient
                    squares[name] += float(gradient.square().sum())
                else:
                    added[name, share] += float((gradient - all_patches[name]).square().sum())
    if count < 2:
        raise ValueError(f"a variance takes at least two batches; got {count}")
    rows = []
    for name in groups:
        mean = torch.as_tensor(sums[name]) / count
        between = (squares[name] - count * float(mean.square().sum())) / (count - 1)
        row: dict[str, Any] = {"gradient of": name}
        row |= {"norm": float(mean.norm()), "deviation": max(between, 0.0) ** 0.5}
        for share in shares:
            row[f"variance, {share:g}"] = 1 + added[name, share] / count / between
        rows.append(row)
    return rows


def _gradients(
    precision: PrecisionSettings,
    model: Distiller,
    batch: Batch,
    groups: dict[str, list[nn.Parameter]],
) -> dict[str, torch.Tensor]:
    """Gradients of the sum of all losses, by group: flat, in float64, on the CPU."""
    device = next(model.parameters()).device
    model.zero_grad()
    with autocast(precision, device):
        losses = model(batch)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    return {
        name: torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        ).to("cpu", torch.float64)
        for name, parameters in groups.items()
    }
