"""Student and teacher: built, weights loaded and sound, taps and patch grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from afdcd.checks.weights import (
    teacher_class_problems,
    teacher_weights_problems,
    weights_problems,
)
from afdcd.distill import Distiller, build_distiller, tap_shapes, training_size
from afdcd.engine.runtime import Runtime
from afdcd.models import count_parameters
from afdcd.utils.findings import Report


def build_student(cfg: Any, runtime: Runtime, report: Report) -> nn.Module | None:
    """The student with its weights, or None where it can't be built."""
    student = _build(cfg, runtime, "the student", report)
    path = cfg.MODEL.WEIGHTS
    if student is None or not path:
        return student
    problems = weights_problems(path, "MODEL.WEIGHTS", needed=False)
    report.fix("weights", *problems)
    if not problems:
        _load(student, path, False, "student", runtime, report)
    return student


def build_teacher(cfg: Any, runtime: Runtime, report: Report) -> tuple[Any, nn.Module | None]:
    """The teacher's config and the teacher, or None where there is none to be had."""
    if not cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE:
        key = "MODEL.DISTILLER.TEACHER.CONFIG_FILE"
        report.fix("teacher", f"{key} is empty: name the teacher's YAML file")
        return None, None
    try:
        teacher_cfg = runtime.teacher_config(cfg)
    except ValueError as error:
        report.fix("teacher", f"MODEL.DISTILLER.TEACHER: {error}")
        return None, None
    wrong = runtime.config_problems(teacher_cfg)
    report.fix("teacher", *(f"the teacher's config: {text}" for text in wrong))
    model = _build(teacher_cfg, runtime, "the teacher", report)
    path = teacher_cfg.MODEL.WEIGHTS
    problems = teacher_weights_problems(cfg, path)
    report.fix("weights", *problems)
    if model is None or problems or not _load(model, path, True, "teacher", runtime, report):
        return teacher_cfg, None
    return teacher_cfg, model


def _build(cfg: Any, runtime: Runtime, whose: str, report: Report) -> nn.Module | None:
    try:
        torch.manual_seed(max(cfg.SEED, 0))
        model = runtime.build(cfg)
    except (ValueError, KeyError, AssertionError, RuntimeError, TypeError) as error:
        report.fix("model", f"{whose} can't be built: {error}")
        return None
    report.facts[f"parameters of {whose}, M"] = count_parameters(model) / 1e6
    return model


def _load(
    model: nn.Module, path: str, complete: bool, whose: str, runtime: Runtime, report: Report
) -> bool:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        report.facts[f"weights of the {whose}"] = runtime.load(model, path, complete)
    except ValueError as error:
        report.fix("weights", f"{whose}: {error}")
        return False
    after = model.state_dict()
    broken = [n for n, v in after.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        report.fix(
            "weights",
            f"{whose}: {Path(path)} holds values that are not finite, in {len(broken)} entries "
            f"such as {broken[0]}: its training had failed",
        )
        return False
    unlike = [n for n, v in after.items() if v.dim() > 1 and not torch.equal(v, before[n])]
    if not unlike:
        report.note("weights", f"{whose}: {Path(path)} changes no weight of its initialization")
    constant = [n for n, v in after.items() if v.dim() == 4 and v.numel() > 64 and v.std() == 0]
    if constant:
        report.fix(
            "weights",
            f"{whose}: {Path(path)} holds constant convolutions, {len(constant)} such as "
            f"{constant[0]}: they were never trained",
        )
    return True


def check_teacher_classes(cfg: Any, teacher_cfg: Any, report: Report) -> None:
    """Whether the teacher was trained on the student's classes."""
    report.fix_problems(teacher_class_problems(cfg, teacher_cfg), "class-order")


def check_format(cfg: Any, teacher_cfg: Any, report: Report) -> None:
    """Whether both models normalize their inputs alike."""
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        one, other = list(cfg.MODEL[key]), list(teacher_cfg.MODEL[key])
        if cfg.INPUT.FORMAT != teacher_cfg.INPUT.FORMAT:
            other.reverse()
        if max(abs(a - b) / max(abs(a), 1) for a, b in zip(one, other, strict=True)) > 0.05:
            report.note(
                "normalization", f"MODEL.{key} is {one} for the student, {other} for the teacher"
            )


def build_pair(
    cfg: Any, student: nn.Module, teacher_cfg: Any, teacher: nn.Module, report: Report
) -> Distiller | None:
    """The distiller, its taps and patch grid described, or None where they don't fit."""
    try:
        distiller = build_distiller(
            cfg, student, teacher, teacher_format=teacher_cfg.INPUT.FORMAT, seed=max(cfg.SEED, 0)
        )
    except (ValueError, RuntimeError, KeyError) as error:
        report.fix("tap", f"{error}")
        return None
    _describe_taps(cfg, distiller, report)
    return distiller


def _describe_taps(cfg: Any, distiller: Distiller, report: Report) -> None:
    size = training_size(cfg)
    sides = {
        "student": (distiller.student, distiller.distiller.student_taps),
        "teacher": (distiller.teacher, distiller.distiller.teacher_taps),
    }
    shapes = {}
    for whose, (model, paths) in sides.items():
        for path, shape in tap_shapes(model, paths, size=size).items():
            shapes[whose, path] = shape
            report.facts[f"tap of the {whose}: {path}"] = {
                "channels": shape.channels,
                "size": [shape.height, shape.width],
                "stride": size[0] / shape.height,
            }
    for objective in distiller.distiller.objectives:
        one, other = (
            shapes["student", objective.student_tap],
            shapes["teacher", objective.teacher_tap],
        )
        if one[1:] != other[1:]:
            report.note(
                "stride",
                f"{objective.student_tap} is {one.height}x{one.width} and {objective.teacher_tap} "
                f"{other.height}x{other.width}: the student's map is resized",
            )
        description = distiller.distiller.loss_of(objective).describe(one, other)
        report.facts |= description.facts
        for kind, sentences in description.remarks.items():
            for sentence in sentences:
                report.note(kind, sentence)
