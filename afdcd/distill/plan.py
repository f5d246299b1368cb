"""Objectives from settings: which loss compares which taps, with which weights and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from afdcd.distill.classes import ClassMatching
from afdcd.distill.components import PrincipalComponents
from afdcd.distill.objectives import Objective, Objectives
from afdcd.distill.settings import KEY, LossSettings
from afdcd.distill.targets import Target, is_logits
from afdcd.losses.registry import DistillationLoss, TapShape


def plan_objectives(
    losses: Sequence[LossSettings], classes: ClassMatching | None = None
) -> list[Objective]:
    """The objectives of a distiller's losses, in their order: one for each pair of taps.

    Modules are named by label, with the last word of the student's path where there are several
    pairs. Terms have the label in their name only where another loss gives terms of the same name.

    Args:
        losses: what to compare.
        classes: which of them are compared where taps are logits; all when None.
    """
    objectives = []
    for loss in losses:
        shared = any(
            other is not loss and other.weights.keys() & loss.weights.keys() for other in losses
        )
        for (student, teacher), factor, suffix in zip(
            loss.taps, loss.factors, _suffixes(loss.taps), strict=True
        ):
            objectives.append(
                Objective(
                    name=f"{loss.label}{suffix}",
                    student_tap=student,
                    teacher_tap=teacher,
                    weights={term: factor * weight for term, weight in loss.weights.items()},
                    suffix=f"_{loss.label}{suffix}" if shared else suffix,
                    label=loss.label,
                    dims=loss.dims,
                    schedule=loss.schedule,
                    **_matched(student, teacher, classes),
                )
            )
    return objectives


def _matched(student: str, teacher: str, classes: ClassMatching | None) -> dict[str, Any]:
    """The channels of a pair of taps that are compared, as arguments of `Objective`."""
    if classes is None or classes.is_identity or not is_logits(teacher):
        return {}
    # A tap of the teacher is one target, whatever it is compared with.
    found = {"teacher_classes": classes.teacher_channels}
    return {**found, "student_classes": classes.student_channels} if is_logits(student) else found


def build_objectives(
    losses: Sequence[LossSettings],
    shapes: Mapping[tuple[str, str], TapShape],
    *,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    steps: int = 0,
    classes: ClassMatching | None = None,
) -> Objectives:
    """Build a distiller's losses.

    Args:
        losses, classes: what to compare: see `plan_objectives`.
        shapes: of each tap for a training image, by (``student`` or ``teacher``, path).
        seed, part, steps: see `Objectives`.

    Raises:
        ValueError: settings that don't fit the taps.
    """
    objectives = [replace(o, corners=_corners(o, shapes)) for o in plan_objectives(losses, classes)]
    settings = {loss.label: loss for loss in losses}
    modules: dict[str, DistillationLoss] = {}
    components: dict[str, PrincipalComponents] = {}
    for objective in objectives:
        student, teacher = objective.student_tap, objective.teacher_tap
        loss, target = settings[objective.label], objective.target
        shape = shapes["teacher", teacher]
        try:
            if target.dims:
                components[target.name] = PrincipalComponents(shape.channels, target.dims)
            modules[objective.name] = loss.kind.from_taps(
                objective.student_shape(shapes["student", student]),
                target_shape(shape, target),
                **loss.arguments,
            )
        except ValueError as error:
            raise ValueError(
                f"{KEY}.{objective.label} on {student} -> {teacher}: {error}"
            ) from error
    return Objectives(objectives, modules, seed=seed, part=part, components=components, steps=steps)


def _corners(
    objective: Objective, shapes: Mapping[tuple[str, str], TapShape]
) -> tuple[bool, bool] | None:
    student, teacher = objective.student_tap, objective.teacher_tap
    if not (is_logits(student) and is_logits(teacher)):
        return None
    return shapes["student", student].corners, shapes["teacher", teacher].corners


def target_shape(shape: TapShape, target: Target) -> TapShape:
    """The shape of a target, from that of the teacher's map."""
    if not target.dims:
        return shape._replace(channels=len(target.classes) or shape.channels)
    return TapShape(target.dims, shape.height, shape.width, whole=shape.channels)


def _suffixes(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Empty for one pair; else the student's paths' last words, numbered if some are equal."""
    if len(pairs) == 1:
        return [""]
    words = [student.rpartition(".")[2] for student, _ in pairs]
    if len(set(words)) < len(words):
        words = [f"{word}_{index}" for index, word in enumerate(words)]
    return [f"_{word}" for word in words]
