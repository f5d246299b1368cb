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
        ValueError: settings don't fit the taps, or the numbers of classes differ.
    """
    check_distiller_settings(cfg)
    if cfg.MODEL.DISTILLER.TEACHER.DTYPE not in TEACHER_DTYPES:
        raise ValueError(
            f"MODEL.DISTILLER.TEACHER.DTYPE takes {', '.join(map(repr, TEACHER_DTYPES))}; got "
            f"{cfg.MODEL.DISTILLER.TEACHER.DTYPE!r}"
        )
    settings = cfg.MODEL.DISTILLER
    height, width = cfg.INPUT.SCALE_CROP.SIZE
    size = (height, width)
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
    if settings.STUDENT == "SemanticSegmentor":
        # The format that convolutions are fastest in; of no influence on values but for rounding.
        student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = FrozenTeacher(
        teacher, flip_channels=flip, dtype=dtype, compiled=settings.TEACHER.COMPILE
    )
    return Distiller(student, frozen, objectives)
