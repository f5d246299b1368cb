"""How strongly each loss pulls at the student's taps, beside the task's own loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from afdcd.distill import Distiller
from afdcd.utils.findings import Report

# Gradients at a tap that differ from the task's by more than the first factor are worth a remark,
# by more than the second one a fault.
REMARKABLE, WRONG = 50.0, 1000.0
FACT = "gradient norms at the student's taps"

# L2 norms by tap, then by the losses that reach it.
Norms = dict[str, dict[str, float]]


def student_taps(model: nn.Module) -> list[str]:
    """The taps of a distiller's student; none of another model."""
    return model.distiller.student_taps if isinstance(model, Distiller) else []


def gradient_norms(losses: Mapping[str, torch.Tensor], taps: Mapping[str, torch.Tensor]) -> Norms:
    """The L2 norm of each loss's gradient at each tap that it reaches.

    Args:
        losses: scalars by name.
        taps: feature maps by path.
    """
    norms: Norms = {path: {} for path in taps}
    paths = [path for path in taps if taps[path].requires_grad]  # frozen stages have no gradients
    if not paths:
        return norms
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        maps = [taps[path] for path in paths]
        gradients = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
        for path, gradient in zip(paths, gradients, strict=True):
            if gradient is not None:
                norms[path][name] = float(gradient.float().norm())
    return norms


def judge_gradients(model: nn.Module, norms: Norms, task_loss: str, report: Report) -> None:
    """Judge each distillation term at its own tap, against the task's loss there.

    Args:
        model: a distiller; of another model there is nothing to judge.
        norms: of its losses.
        task_loss: name of the loss that the others are measured against; where a tap lacks it, the
            largest of the student's own.
        report: takes what is found.
    """
    if not isinstance(model, Distiller):
        return
    report.facts[FACT] = norms
    keys = model.distiller.weight_keys()
    for objective in model.distiller.objectives:
        at_tap = norms[objective.student_tap]
        # The student's own losses; the auxiliary head's doesn't reach every tap.
        own = [norm for name, norm in at_tap.items() if name not in keys]
        task = at_tap.get(task_loss, max(own, default=0.0))
        for name in objective.term_names().values():
            _judge(name, objective.student_tap, at_tap.get(name), task, keys[name], report)


def _judge(name: str, tap: str, norm: float | None, task: float, key: str, report: Report) -> None:
    if norm is None or norm == 0:
        say = "doesn't reach" if norm is None else "has no gradient at"
        report.note("loss-weight", f"{name} {say} the student's {tap}: see {key}")
        return
    if not math.isfinite(norm):
        report.fix("non-finite", f"{name}'s gradient at the student's {tap} is {norm:g}")
        return
    if not math.isfinite(task) or task <= 0:
        return
    ratio = norm / task
    if 1 / REMARKABLE < ratio < REMARKABLE:
        return
    say_it = report.note if 1 / WRONG < ratio < WRONG else report.fix
    say_it(
        "loss-weight",
        f"{name}'s gradient at the student's {tap} is {ratio:.3g} times the task loss's; {key} "
        f"multiplied by {1 / ratio:.1g} would make them equal, by {10 / ratio:.1g} ten times it",
    )


def judge_values(losses: Mapping[str, torch.Tensor], report: Report) -> None:
    """Whether every loss is a number."""
    values = {name: float(value.detach()) for name, value in losses.items()}
    report.facts["losses"] = values
    for name, value in values.items():
        if not math.isfinite(value):
            report.fix("non-finite", f"{name} is {value:g}")
