"""The score of a teacher, as it is distilled from."""

from __future__ import annotations

from typing import Any

from afdcd.d2.evaluation import evaluate
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.distill import Distiller, distiller_settings
from afdcd.engine.averaged_teacher import evaluated_teacher
from afdcd.engine.runtime import Runtime


def teacher_scores(own: Detectron2Runtime, teacher: Runtime, model: Distiller) -> dict[str, Any]:
    """Figures by data set and task, on the first of the run's test sets.

    Args:
        own: the run.
        teacher: its teacher's side; its config is changed.
        model: has the teacher.
    """
    settings = distiller_settings(own.cfg).teacher
    cfg = teacher.cfg
    cfg.DATASETS.TEST = own.cfg.DATASETS.TEST[:1]
    cfg.INPUT.MAPPER = own.cfg.INPUT.MAPPER
    if settings.resolution != 1 and own.cfg.INPUT.MIN_SIZE_TEST:
        cfg.INPUT.MIN_SIZE_TEST = round(own.cfg.INPUT.MIN_SIZE_TEST * settings.resolution)
    if settings.flip or settings.scales != (1.0,):
        cfg.TEST.SCALES, cfg.TEST.FLIP = list(settings.scales), settings.flip
    others = model.live.others
    if not others and own.class_matching(teacher) is None:
        return evaluate(cfg, model.teacher)
    sides = [teacher, *own.other_teachers()]
    models = [model.teacher, *(other.model for other in others)]
    _, together = evaluated_teacher(own, sides, models)
    cfg.TEST.SCALES, cfg.TEST.FLIP, cfg.TEST.WINDOW = [1.0], False, []  # of each, by itself
    return evaluate(cfg, together)
