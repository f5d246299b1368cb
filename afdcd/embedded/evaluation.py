"""Scoring a model on a data set."""

from __future__ import annotations

import torch
from torch import nn

from afdcd.embedded.loader import evaluation_batches
from afdcd.engine.precision import autocast
from afdcd.engine.settings import EvaluationSettings
from afdcd.evaluation import predict
from afdcd.tasks import Task
from afdcd.utils.progress import progress


def evaluate(settings: EvaluationSettings, model: nn.Module, task: Task) -> dict[str, float]:
    """Score a model on a task's data set.

    Args:
        settings: the model's own.
        model: left in the mode it was in.
        task: on the data set to score.

    Returns:
        the figures of `Task.evaluator`.
    """
    evaluator = task.evaluator()
    records = task.dataset.records
    mapper = settings.loading.evaluation_mapper()
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(settings.precision, device):
            batches = evaluation_batches(records, mapper, workers=settings.loading.workers)
            for batch in progress(batches, "evaluating", total=len(records)):
                evaluator.process(batch, predict(settings.inference, model, batch))
    finally:
        model.train(was_training)
    if settings.pictures is not None:
        task.draw_evaluation(evaluator, settings.pictures)
    return evaluator.evaluate()
