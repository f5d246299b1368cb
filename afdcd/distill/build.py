"""Build a distiller from a config, in either runtime."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from afdcd.distill.distiller import Distiller, tap_shapes
from afdcd.distill.objectives import check_distiller_settings, objectives_from_config
from afdcd.distill.teacher import FrozenTeacher

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
    """Put a student and a teacher together as ``MODEL.DISTILLER`` says.

    Args:
        cfg: the student's config, with ``MODEL.DISTILLER``, ``MODEL.AFDCD`` and ``MODEL.LOGIT_KD``.
        student: the model to train.
        teacher: with its weights loaded.
        teacher_format: the teacher's ``INPUT.FORMAT``; the student's is ``cfg.INPUT.FORMAT``.
        seed: of the random masks.
        part: which part of a batch this process has, and of how many.

    Raises:
        TapError: a tap doesn't exist, or isn't one feature map.
        ValueError: settings don't fit the taps, the numbers of classes differ, or the models pad
            their images to different sizes.
    """
    check_distiller_settings(cfg)
    if cfg.MODEL.DISTILLER.TEACHER.DTYPE not in TEACHER_DTYPES:
        raise ValueError(
            f"MODEL.DISTILLER.TEACHER.DTYPE takes {', '.join(map(repr, TEACHER_DTYPES))}; got "
            f"{cfg.MODEL.DISTILLER.TEACHER.DTYPE!r}"
        )
    settings = cfg.MODEL.DISTILLER
    size = training_size(cfg)
    _check_padding(cfg, student, teacher)
    sides = {"student": student, "teacher": teacher}
    pairs = list(settings.FEATURE_TAPS) if "afdcd" in settings.LOSSES else []
    if "logit_kd" in settings.LOSSES:
        pairs.append(settings.LOGIT_TAPS)
    shapes = {}
    for side, (name, model) in enumerate(sides.items()):
        paths = list(dict.fromkeys(pair[side] for pair in pairs))
        found = tap_shapes(model, paths, size=size, whose=f"the {name}")
        shapes.update({(name, path): shape for path, shape in found.items()})
    if "logit_kd" in settings.LOSSES:
        student_tap, teacher_tap = settings.LOGIT_TAPS
        classes = shapes["student", student_tap][0], shapes["teacher", teacher_tap][0]
        if classes[0] != classes[1]:
            raise ValueError(
                f"logit_kd compares {student_tap} ({classes[0]} channels) of the student with "
                f"{teacher_tap} ({classes[1]} channels) of the teacher: their classes must be the "
                "same. Check NUM_CLASSES of both configs, or leave logit_kd out of "
                "MODEL.DISTILLER.LOSSES"
            )
    objectives = objectives_from_config(cfg, shapes, seed=seed, part=part)
    flip = teacher_format != cfg.INPUT.FORMAT
    dtype = TEACHER_DTYPES[settings.TEACHER.DTYPE]
    frozen = FrozenTeacher(
        teacher, flip_channels=flip, dtype=dtype, compiled=settings.TEACHER.COMPILE
    )
    return Distiller(
        student, frozen, objectives, format_student=settings.STUDENT == "SemanticSegmentor"
    )


def training_size(cfg: Any) -> tuple[int, int]:
    """Height and width of training images; of the smallest, where they vary."""
    if cfg.INPUT.MAPPER == "scale_crop":
        height, width = cfg.INPUT.SCALE_CROP.SIZE
        return height, width
    if _cropped(cfg):
        height, width = cfg.INPUT.CROP.SIZE
        return int(height), int(width)
    side = min(cfg.INPUT.MIN_SIZE_TRAIN) or 512  # 0: images as they are
    return side, side


def _cropped(cfg: Any) -> bool:
    return cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE == "absolute"


def _check_padding(cfg: Any, student: nn.Module, teacher: nn.Module) -> None:
    """Raise ValueError where the models' feature maps would not show the same area.

    Detectron2's models on a pyramid pad images to multiples of 32, others don't.
    """
    steps = [
        getattr(getattr(model, "backbone", None), "size_divisibility", 0) or 1
        for model in (student, teacher)
    ]
    if steps[0] == steps[1]:
        return
    fixed = cfg.INPUT.MAPPER == "scale_crop" or _cropped(cfg)
    size = training_size(cfg)
    if fixed and all(side % step == 0 for side in size for step in steps):
        return
    raise ValueError(
        f"the student pads images to multiples of {steps[0]}, the teacher of {steps[1]}, so that "
        "their feature maps would not show the same area: train on crops of a multiple of both "
        f"(now {f'{size[0]}x{size[1]}' if fixed else 'sizes vary'}), by INPUT.SCALE_CROP.SIZE or "
        "INPUT.CROP of TYPE absolute"
    )
