"""Build a distiller from a config, in either runtime."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from afdcd.distill.distiller import Distiller, tap_shapes
from afdcd.distill.objectives import build_objectives, plan_objectives
from afdcd.distill.settings import DistillerSettings, read_losses
from afdcd.distill.teacher import FrozenTeacher
from afdcd.utils.problems import SettingsError

TEACHER_DTYPES = {
    "": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def build_distiller(
    cfg: Any,
    student: nn.Module,
    teacher: nn.Module,
    *,
    teacher_format: str = "BGR",
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Distiller:
    """Combine a student and a teacher as ``MODEL.DISTILLER`` says.

    Args:
        cfg: the student's config, with ``MODEL.DISTILLER``.
        student: the model to train.
        teacher: with its weights loaded.
        teacher_format: the teacher's ``INPUT.FORMAT``; the student's is ``cfg.INPUT.FORMAT``.
        seed: of the losses' random draws (masks, patches).
        part: which part of a batch this process has, and of how many.

    Raises:
        TapError: a tap doesn't exist, or isn't one feature map.
        ValueError: settings don't fit the taps, the numbers of classes differ, or the models pad
            their images to different sizes.
    """
    settings = distiller_settings(cfg)
    size = training_size(cfg)
    if problem := _padding_problem(student, teacher, size if _has_fixed_size(cfg.INPUT) else None):
        raise ValueError(problem)
    objectives = plan_objectives(settings.losses)
    taps = {
        "student": (student, [o.student_tap for o in objectives]),
        "teacher": (teacher, [o.teacher_tap for o in objectives]),
    }
    shapes = {
        (whose, path): shape
        for whose, (model, paths) in taps.items()
        for path, shape in tap_shapes(
            model, list(dict.fromkeys(paths)), size=size, whose=f"the {whose}"
        ).items()
    }
    steps = cfg.SOLVER.MAX_ITER
    distillation = build_objectives(settings.losses, shapes, seed=seed, part=part, steps=steps)
    flip = teacher_format != cfg.INPUT.FORMAT
    dtype = TEACHER_DTYPES[settings.teacher_dtype]
    frozen = FrozenTeacher(
        teacher, flip_channels=flip, dtype=dtype, compiled=settings.compile_teacher
    )
    formatted = cfg.MODEL.DISTILLER.STUDENT == "SemanticSegmentor"
    return Distiller(student, frozen, distillation, format_student=formatted)


def distiller_settings(cfg: Any) -> DistillerSettings:
    """The settings in ``MODEL.DISTILLER``.

    Raises:
        SettingsError: settings that can't work, whatever the models; lists all of them.
    """
    node = cfg.MODEL.DISTILLER
    problems: list[str] = []
    try:
        losses = read_losses(node.LOSSES)
    except SettingsError as error:
        problems += error.problems
        losses = ()
    try:
        return DistillerSettings(
            losses=losses,
            clip_gradients=node.CLIP_GRADIENTS,
            lr_factor=node.LR_FACTOR,
            teacher_dtype=node.TEACHER.DTYPE,
            compile_teacher=node.TEACHER.COMPILE,
        )
    except SettingsError as error:
        # Without losses, its first problem is that there are none; the reason is already listed.
        problems += error.problems if losses else error.problems[1:]
    raise SettingsError(problems)


def training_size(cfg: Any) -> tuple[int, int]:
    """Height and width of training images; of the smallest, where they vary."""
    if cfg.INPUT.MAPPER == "scale_crop":
        height, width = cfg.INPUT.SCALE_CROP.SIZE
        return height, width
    if _has_fixed_size(cfg.INPUT):
        height, width = cfg.INPUT.CROP.SIZE
        return int(height), int(width)
    side = min(cfg.INPUT.MIN_SIZE_TRAIN) or 512  # 0: images as they are
    return side, side


def _has_fixed_size(images: Any) -> bool:
    """Whether all training images have one size, by ``INPUT``."""
    if images.MAPPER == "scale_crop":
        return True
    return images.CROP.ENABLED and images.CROP.TYPE == "absolute"


def _padding_problem(
    student: nn.Module, teacher: nn.Module, size: tuple[int, int] | None
) -> str | None:
    """What is wrong if the models' feature maps would not show the same area.

    Detectron2's models on a pyramid pad images to multiples of 32; others don't.

    Args:
        student, teacher: the models.
        size: of all training images; None where it varies.
    """
    steps = [
        getattr(getattr(model, "backbone", None), "size_divisibility", 0) or 1
        for model in (student, teacher)
    ]
    if steps[0] == steps[1]:
        return None
    if size and all(side % step == 0 for side in size for step in steps):
        return None
    return (
        f"the student pads images to multiples of {steps[0]}, the teacher of {steps[1]}, so that "
        "their feature maps would not show the same area: train on crops of a multiple of both "
        f"(now {f'{size[0]}x{size[1]}' if size else 'sizes vary'}), by INPUT.SCALE_CROP.SIZE or "
        "INPUT.CROP of TYPE absolute"
    )
