"""The distiller for Detectron2's Python configs (LazyConfig)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from afdcd.config import ConfigError, merge_content
from afdcd.d2.config import get_cfg
from afdcd.d2.weights import load_model_weights
from afdcd.distill import Distiller, build_distiller
from afdcd.distill.teacher_settings import TeacherSettings


def distill(
    *,
    student: nn.Module,
    teacher: nn.Module,
    teacher_weights: str,
    settings: Mapping[str, Any],
    student_weights: str = "",
    image_size: Sequence[int] = (512, 512),
    student_format: str = "BGR",
    teacher_format: str = "BGR",
    seed: int = 0,
    max_iter: int = 0,
) -> Distiller:
    """A `Distiller` of two models, as ``L(distill)(student=..., teacher=..., ...)``.

    A training script sees one model: its checkpoints hold ``student.*`` and ``distiller.*``, and
    nothing of the teacher; ``model.student`` is the network to use.

    Args:
        student: to be trained.
        teacher: in Detectron2's protocol; it is frozen.
        teacher_weights: file or URL; must set all of the teacher. Empty: it has its weights.
        settings: the key ``DISTILLER`` of a YAML config's ``MODEL`` (`afdcd.config.keys`).
        student_weights: file or URL, of all or a part of the student; ``train.init_checkpoint``
            would be taken for both.
        image_size: height and width of the smallest training images, to check that the settings
            fit the feature maps; multiples of both models' size divisibility.
        student_format, teacher_format: ``BGR`` or ``RGB``: the channels that each expects. The
            data's are the student's.
        seed: of the random masks.
        max_iter: iterations of the whole training, for losses with a ``SCHEDULE``.

    Raises:
        ConfigError, CheckpointError, TapError, ValueError: see the parts.
    """
    cfg = get_cfg()
    content = OmegaConf.to_container(settings) if OmegaConf.is_config(settings) else settings
    merge_content(cfg, {"MODEL": content}, "settings")
    if cfg.MODEL.DISTILLER.TEACHER.RECORD.FOLDER:
        raise ConfigError(
            "DISTILLER.TEACHER.RECORD takes the loader of afdcd.d2.DistillTrainer (YAML configs): "
            "leave it out"
        )
    if TeacherSettings.read(cfg.MODEL.DISTILLER.TEACHER).matches_classes:
        raise ConfigError(
            "DISTILLER.TEACHER's NAME, CLASSES, CLASS_MAP and MATCH_CLASSES are of YAML configs: "
            "leave them out; here both models have the same channels"
        )
    cfg.SOLVER.MAX_ITER = max_iter
    cfg.INPUT.SCALE_CROP.SIZE = list(image_size)
    cfg.INPUT.FORMAT = student_format
    if student_weights:
        load_model_weights(student, student_weights, complete=False)
    if teacher_weights:
        load_model_weights(teacher, teacher_weights, complete=True)
    return build_distiller(
        cfg,
        student,
        teacher,
        teacher_format=teacher_format,
        seed=seed,
        part=(comm.get_rank(), comm.get_world_size()),
    )
