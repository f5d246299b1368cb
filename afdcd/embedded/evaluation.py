"""Evaluation of a model on the data sets of ``DATASETS.TEST``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afdcd.data import Dataset, read_labels
from afdcd.data.from_config import evaluation_mapper
from afdcd.embedded.loader import evaluation_batches
from afdcd.engine.precision import autocast
from afdcd.evaluation import SegmentationEvaluator, predict
from afdcd.evaluation.confusion_plot import write_confusion


def evaluate(cfg: Any, model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Score a model on a data set.

    Args:
        cfg: the model's config: ``INPUT``, ``TEST`` and ``SOLVER.AMP`` are read.
        model: left in the mode it was in.
        dataset: with labels.

    Returns:
        figures in percent, see `SegmentationEvaluator`.
    """
    evaluator = SegmentationEvaluator(
        dataset.spec.classes,
        lambda record: read_labels(record["sem_seg_file_name"], dataset.label_map),
        ignore_label=dataset.spec.ignore_label,
    )
    mapper = evaluation_mapper(cfg, dataset.label_map)
    workers = cfg.DATALOADER.NUM_WORKERS
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(cfg, device):
            for batch in evaluation_batches(dataset.records, mapper, workers=workers):
                evaluator.process(batch, predict(cfg, model, batch))
    finally:
        model.train(was_training)
    if cfg.TEST.CONFUSION:
        write_confusion(
            Path(cfg.OUTPUT_DIR),
            dataset.spec.name,
            evaluator.confusion.counts,
            dataset.spec.classes,
        )
    return evaluator.evaluate()["sem_seg"]


def describe(figures: Mapping[str, float]) -> str:
    """The figures of a data set in one line."""
    return (
        f"mIoU {figures['mIoU']:.2f}, pixel accuracy {figures['pACC']:.2f}, "
        f"boundary IoU {figures['mBoundaryIoU']:.2f}"
    )
