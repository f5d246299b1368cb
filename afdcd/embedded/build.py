"""Models, and the teacher with its own config, as a config describes them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.engine.recording import Recording
from afdcd.engine.runtime import Teacher
from afdcd.models import SemanticSegmentor
from afdcd.tasks import Task

logger = logging.getLogger(__name__)


def build_student(run: EmbeddedRuntime, seed: int, task: Task) -> SemanticSegmentor:
    """The network to train, its initialization a function of config and seed, on the CPU.

    ``MODEL.WEIGHTS``, where set, is loaded over it: all of it, or an ImageNet backbone.

    Raises:
        CheckpointError, ValueError: it can't be built or loaded.
    """
    torch.manual_seed(seed)
    model = run.build()
    task.bind(model)
    if run.weights:
        logger.info("Student: %s", run.load(model, run.weights, complete=False))
    return model


def build_for_training(
    run: EmbeddedRuntime, seed: int, task: Task, recording: Recording | None = None
) -> tuple[nn.Module, list[Teacher]]:
    """The model to train and, for a ``Distiller``, its teachers.

    The student's initialization is the same with and without a teacher. Where everything of the
    teacher is recorded, it isn't loaded, and there are none.

    Raises:
        ConfigError, CheckpointError, TapError, ValueError: see the parts.
    """
    student = build_student(run, seed, task)
    if not run.distils:
        return student, []
    distiller, teachers = run.distiller(student, seed=seed, recording=recording)
    logger.info(
        "Loss: %s%s",
        distiller.distiller.formula(),
        "; the teacher teaches on images without labels alone" if distiller.unlabeled_only else "",
    )
    return distiller, teachers


def load_for_evaluation(run: EmbeddedRuntime, weights: Path) -> SemanticSegmentor:
    """The student alone, with the weights of a checkpoint. Needs no teacher.

    Raises:
        CheckpointError, ValueError: it can't be built or loaded.
    """
    model = run.build()
    logger.info("Evaluating: %s", run.load(model, str(weights), complete=True))
    return model
