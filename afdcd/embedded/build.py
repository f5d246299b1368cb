"""Models, and the teacher with its own config, as a config describes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.engine.recording import Recording
from afdcd.models import SemanticSegmentor
from afdcd.tasks import Task

logger = logging.getLogger(__name__)


class Teacher(NamedTuple):
    """A teacher's config and its model, weights loaded."""

    side: EmbeddedRuntime
    model: SemanticSegmentor


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
    side, teachers = run.teacher(), []
    if recording is None or not recording.complete:
        sides = [side, *run.other_teachers()]
        teachers = [Teacher(each, each.build_teacher()) for each in sides]
    distiller = run.pair(
        student,
        side,
        teachers[0].model if teachers else None,
        seed=seed,
        others=[(other.model, other.side.image_format) for other in teachers[1:]],
        recording=recording,
    )
    logger.info("Loss: %s", distiller.distiller.formula())
    return distiller, teachers


def load_for_evaluation(run: EmbeddedRuntime, weights: Path) -> SemanticSegmentor:
    """The student alone, with the weights of a checkpoint. Needs no teacher.

    Raises:
        CheckpointError, ValueError: it can't be built or loaded.
    """
    model = run.build()
    logger.info("Evaluating: %s", run.load(model, str(weights), complete=True))
    return model
