"""Scoring with Detectron2's evaluators."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
    inference_context,
    inference_on_dataset,
)
from detectron2.utils import comm
from torch import nn

from afdcd.analysis import write_confusion
from afdcd.d2.datasets import find_dataset
from afdcd.d2.loader import evaluation_loader
from afdcd.d2.panoptic import PanopticEvaluator
from afdcd.data import read_labels
from afdcd.evaluation import SegmentationEvaluator, predict
from afdcd.precision import autocast


def evaluate(cfg: Any, model: nn.Module) -> dict[str, dict[str, dict[str, float]]]:
    """Score a model on every data set of ``DATASETS.TEST``.

    Args:
        cfg: the model's config.
        model: not wrapped; left in the mode it was in.

    Returns:
        by data set, then by task (``sem_seg``, ``panoptic_seg``, ``bbox``, ``segm``), the figures
        in percent; empty but on the main process.
    """
    results = {}
    for name in cfg.DATASETS.TEST:
        results[name] = inference_on_dataset(
            _Predictor(cfg, model), evaluation_loader(cfg, name), build_evaluator(cfg, name)
        )
    return {name: {} if found is None else dict(found) for name, found in results.items()}


class _Predictor:
    """The model in evaluation mode, over scales, flips and autocast as the config says."""

    def __init__(self, cfg: Any, model: nn.Module) -> None:
        self.cfg, self.model = cfg, model

    def __call__(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with ExitStack() as stack:
            stack.enter_context(inference_context(self.model))
            stack.enter_context(torch.no_grad())
            stack.enter_context(autocast(self.cfg, torch.device(self.cfg.MODEL.DEVICE)))
            if self.cfg.INPUT.MAPPER == "detectron2":
                return self.model(inputs)
            return predict(self.cfg, self.model, inputs)


def build_evaluator(cfg: Any, name: str) -> DatasetEvaluator:
    """The evaluator of a data set's ``evaluator_type``.

    Raises:
        ValueError: a type that isn't supported here, with what is.
    """
    kind = getattr(MetadataCatalog.get(name), "evaluator_type", "sem_seg")
    if cfg.INPUT.MAPPER != "detectron2" or kind == "sem_seg":
        return SemanticEvaluator(name, Path(cfg.OUTPUT_DIR) if cfg.TEST.CONFUSION else None)
    if kind == "coco":
        return COCOEvaluator(name, output_dir=cfg.OUTPUT_DIR)
    if kind == "coco_panoptic_seg":
        # Detectron2's own panoptic evaluator needs panopticapi, which is not on PyPI.
        found: list[DatasetEvaluator] = [PanopticEvaluator(name)]
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES > 0:
            found.append(SemSegEvaluator(name))
        if cfg.MODEL.MASK_ON:
            found.append(COCOEvaluator(name, output_dir=cfg.OUTPUT_DIR))
        return DatasetEvaluators(found)
    raise ValueError(
        f"{name} has evaluator type {kind!r}; supported are sem_seg, coco and coco_panoptic_seg"
    )


class SemanticEvaluator(DatasetEvaluator):
    """`SegmentationEvaluator` over all processes, so that both runtimes give the same figures.

    (Detectron2's ``SemSegEvaluator`` has the same IoU and another boundary IoU.)

    Args:
        name: of a semantic segmentation data set.
        folder: where the confusion matrix is drawn; not at all when None.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        dataset = find_dataset(name)
        self._name, self._folder = name, folder
        # Detectron2's own mapper takes the label map's path out of the records.
        labels = {r["file_name"]: r["sem_seg_file_name"] for r in dataset.records}
        self._scores = SegmentationEvaluator(
            dataset.spec.classes,
            lambda record: read_labels(labels[record["file_name"]], dataset.label_map),
            ignore_label=dataset.spec.ignore_label,
        )

    def reset(self) -> None:
        self._scores.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self._scores.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """The figures on the main process, None on the others."""
        scores = self._scores
        parts = comm.gather(scores.counts())
        if not comm.is_main_process():
            return None
        scores.reset()
        for part in parts:
            scores.add(part)
        if self._folder is not None:
            write_confusion(self._folder, self._name, scores.confusion.counts, scores.classes)
        return scores.evaluate()
