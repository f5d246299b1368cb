"""Student and teacher: built, weights loaded and sound, taps and patch grid."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from afdcd.checks.frozen import frozen_problems
from afdcd.checks.weights import (
    NO_TEACHER,
    class_differences,
    finite_problems,
    loaded_problems,
    teacher_class_problems,
    teacher_config_problems,
    teacher_weights_problems,
    weights_problems,
)
from afdcd.distill import Distiller, tap_shapes
from afdcd.distill.plan import target_shape
from afdcd.engine.runtime import Runtime
from afdcd.models import count_parameters
from afdcd.utils.findings import Report


def build_student(run: Runtime, report: Report) -> nn.Module | None:
    """The student with its weights, or None where it can't be built."""
    student, path = _build(run, "the student", report), run.weights
    report.fix("weights", *frozen_problems(run))
    if student is None or not path:
        return student
    problems = weights_problems(path, "MODEL.WEIGHTS", needed=False, fetches=run.FETCHES)
    report.fix("weights", *problems)
    if not problems:
        _load(run, student, False, "student", report)
    return student


def build_teacher(run: Runtime, report: Report) -> tuple[Runtime | None, nn.Module | None]:
    """The teacher's config and the teacher, or None where there is none to be had."""
    if not (run.teacher_file or run.teacher_name):
        report.fix("teacher", NO_TEACHER)
        return None, None
    try:
        teacher = run.teacher()
    except ValueError as error:
        report.fix("teacher", f"MODEL.DISTILLER.TEACHER: {error}")
        return None, None
    wrong = teacher_config_problems(run, teacher)
    report.fix("teacher", *wrong)
    if run.teacher_name:
        return teacher, None if wrong else _adapted(teacher, report)
    model = _build(teacher, "the teacher", report)
    problems = teacher_weights_problems(run, teacher)
    report.fix("weights", *problems)
    if model is None or problems or not _load(teacher, model, True, "teacher", report):
        return teacher, None
    return teacher, model


def _build(run: Runtime, whose: str, report: Report) -> nn.Module | None:
    try:
        torch.manual_seed(max(run.seed, 0))
        model = run.build()
    except (ValueError, KeyError, AssertionError, RuntimeError, TypeError) as error:
        report.fix("model", f"{whose} can't be built: {error}")
        return None
    report.facts[f"parameters of {whose}, M"] = count_parameters(model) / 1e6
    return model


def _adapted(teacher: Runtime, report: Report) -> nn.Module | None:
    """A model of other people's, which comes with its weights."""
    model = _build(teacher, "the teacher", report)
    if model is None:
        return None
    report.facts["weights of the teacher"] = teacher.load(model, teacher.weights, complete=True)
    problems = finite_problems(model, teacher.weights, "the teacher")
    report.fix_problems(problems)
    return None if problems else model


def _load(run: Runtime, model: nn.Module, complete: bool, whose: str, report: Report) -> bool:
    path = run.weights
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        report.facts[f"weights of the {whose}"] = run.load(model, path, complete=complete)
    except ValueError as error:
        report.fix("weights", f"{whose}: {error}")
        return False
    after = model.state_dict()
    problems = loaded_problems(model, path, f"the {whose}")
    report.fix_problems(problems)
    if problems:
        return False
    unlike = [n for n, v in after.items() if v.dim() > 1 and not torch.equal(v, before[n])]
    if not unlike:
        report.note("weights", f"{whose}: {Path(path)} changes no weight of its initialization")
    return True


def check_teacher_classes(run: Runtime, teacher: Runtime, report: Report) -> None:
    """Whether the teacher was trained on the student's classes."""
    problems = teacher_class_problems(run, teacher)
    report.fix_problems(problems, "class-order")
    if problems:
        return
    if run.compares_classes and (matching := run.class_matching(teacher)):
        report.facts["classes matched by name"] = {
            f"{matching.student[one]} (teacher's {other})": matching.teacher[other]
            for one, other in matching.pairs
        }
        report.note("classes", *matching.remarks)
    if differences := class_differences(run, teacher):
        text = f"it has other classes than the student, so it isn't scored: {differences[0]}"
        report.note("teacher", text)


def check_format(run: Runtime, teacher: Runtime, report: Report) -> None:
    """Whether both models normalize their inputs alike."""
    for key, one in run.normalization.items():
        other = teacher.normalization[key]
        if run.image_format != teacher.image_format:
            other = other[::-1]
        if max(abs(a - b) / max(abs(a), 1) for a, b in zip(one, other, strict=True)) > 0.05:
            report.note(
                "normalization",
                f"MODEL.PIXEL_{key} is {one} for the student, {other} for the teacher",
            )


def build_pair(
    run: Runtime, student: nn.Module, teacher: Runtime, model: nn.Module, report: Report
) -> Distiller | None:
    """The distiller, its taps and patch grid described, or None where they don't fit."""
    try:
        distiller = run.pair(student, teacher, model)
    except (ValueError, RuntimeError, KeyError) as error:
        report.fix("tap", f"{error}")
        return None
    _describe_taps(run.training_size, distiller, report)
    return distiller


def _describe_taps(size: tuple[int, int], distiller: Distiller, report: Report) -> None:
    sides = {
        "student": tap_shapes(distiller.student, distiller.distiller.student_taps, size=size),
        "teacher": distiller.teacher_shapes,
    }
    shapes = {}
    for whose, found in sides.items():
        for path, shape in found.items():
            shapes[whose, path] = shape
            report.facts[f"tap of the {whose}: {path}"] = {
                "channels": shape.channels,
                "size": [shape.height, shape.width],
                "stride": size[0] / shape.height,
            }
    for objective in distiller.distiller.objectives:
        one, other = (
            objective.student_shape(shapes["student", objective.student_tap]),
            target_shape(shapes["teacher", objective.teacher_tap], objective.target),
        )
        if one[1:3] != other[1:3]:
            both = objective.corners is not None  # logits
            how = "they are compared on the finer grid" if both else "the student's map is resized"
            report.note(
                "stride",
                f"{objective.student_tap} is {one.height}x{one.width} and {objective.teacher_tap} "
                f"{other.height}x{other.width}: {how}",
            )
        description = distiller.distiller.loss_of(objective).describe(one, other)
        report.facts |= description.facts
        for kind, sentences in description.remarks.items():
            for sentence in sentences:
                report.note(kind, sentence)
