"""Models, and the teacher with its own config, as a config describes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from afdcd.config import embedded_config, merge_file, merge_overrides
from afdcd.distill import Distiller, build_distiller
from afdcd.models import SemanticSegmentor, build_segmentor_from_config, load_weights
from afdcd.tasks import Task

logger = logging.getLogger(__name__)


class Teacher(NamedTuple):
    """A teacher's config and its model, weights loaded."""

    cfg: Any
    model: SemanticSegmentor


def teacher_config(cfg: Any) -> Any:
    """The config that ``MODEL.DISTILLER.TEACHER`` names, with its overrides.

    Raises:
        ConfigError: it can't be read.
    """
    settings = cfg.MODEL.DISTILLER.TEACHER
    teacher_cfg = embedded_config()
    merge_file(teacher_cfg, settings.CONFIG_FILE)
    merge_overrides(teacher_cfg, [str(word) for word in settings.OPTS])
    teacher_cfg.MODEL.WEIGHTS = settings.WEIGHTS or teacher_cfg.MODEL.WEIGHTS
    return teacher_cfg


def build_teacher(cfg: Any) -> Teacher:
    """The teacher on the CPU, with its weights.

    Raises:
        ConfigError, CheckpointError, ValueError: it can't be built or loaded.
    """
    teacher_cfg = teacher_config(cfg)
    model = build_segmentor_from_config(teacher_cfg)
    report = load_weights(model, teacher_cfg.MODEL.WEIGHTS, part="model")
    logger.info("Teacher: %s", report)
    return Teacher(teacher_cfg, model)


def build_student(cfg: Any, seed: int, task: Task) -> SemanticSegmentor:
    """The network to train, its initialization a function of config and seed, on the CPU.

    ``MODEL.WEIGHTS``, where set, is loaded over it: all of it, or an ImageNet backbone.

    Raises:
        CheckpointError, ValueError: it can't be built or loaded.
    """
    torch.manual_seed(seed)
    model = build_segmentor_from_config(cfg)
    task.bind(model)
    if cfg.MODEL.WEIGHTS:
        logger.info("Student: %s", load_weights(model, cfg.MODEL.WEIGHTS))
    return model


def build_for_training(cfg: Any, seed: int, task: Task) -> tuple[nn.Module, Teacher | None]:
    """The model to train and, for a ``Distiller``, its teacher.

    The student's initialization is the same with and without a teacher.

    Raises:
        ConfigError, CheckpointError, TapError, ValueError: see the parts.
    """
    student = build_student(cfg, seed, task)
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return student, None
    teacher = build_teacher(cfg)
    distiller: Distiller = build_distiller(
        cfg, student, teacher.model, teacher_format=teacher.cfg.INPUT.FORMAT, seed=seed
    )
    logger.info("Loss: %s", distiller.distiller.formula())
    return distiller, teacher


def load_for_evaluation(cfg: Any, weights: Path) -> SemanticSegmentor:
    """The student alone, with the weights of a checkpoint. Needs no teacher.

    Raises:
        CheckpointError, ValueError: it can't be built or loaded.
    """
    model = build_segmentor_from_config(cfg)
    logger.info("Evaluating: %s", load_weights(model, weights, part="model"))
    return model
