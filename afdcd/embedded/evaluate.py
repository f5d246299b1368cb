"""Evaluation of a model on the data sets of ``DATASETS.TEST``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from afdcd.data import Dataset, read_labels
from afdcd.embedded.loader import evaluation_batches
from afdcd.embedded.mappers import evaluation_mapper
from afdcd.embedded.precision import autocast
from afdcd.evaluation import SegmentationEvaluator, multiscale_logits
from afdcd.models import SemanticSegmentor


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
    return evaluator.evaluate()["sem_seg"]


def predict(cfg: Any, model: nn.Module, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The model's outputs at the records' size, over ``TEST.SCALES`` and ``TEST.FLIP``."""
    scales, flip = list(cfg.TEST.SCALES), cfg.TEST.FLIP
    if scales == [1.0] and not flip:
        return model(batch)
    if not isinstance(model, SemanticSegmentor):
        raise ValueError("TEST.SCALES and TEST.FLIP take a SemanticSegmentor")
    outputs = []
    for item in batch:
        image = (item["image"].to(model.device) - model.pixel_mean) / model.pixel_std
        logits = multiscale_logits(
            lambda x: model.sem_seg_head.layers(model.backbone(x)),
            image[None],
            scales=scales,
            flip=flip,
        )
        size = (item["height"], item["width"])
        if tuple(logits.shape[-2:]) != size:
            logits = nn.functional.interpolate(
                logits, size=size, mode="bilinear", align_corners=False
            )
        outputs.append({"sem_seg": logits[0]})
    return outputs


def describe(figures: Mapping[str, float]) -> str:
    """The figures of a data set in one line."""
    return (
        f"mIoU {figures['mIoU']:.2f}, pixel accuracy {figures['pACC']:.2f}, "
        f"boundary IoU {figures['mBoundaryIoU']:.2f}"
    )
