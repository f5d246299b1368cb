"""Scoring with Detectron2's evaluators."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
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

from afdcd.d2.config import trained_architecture
from afdcd.d2.datasets import catalog_name, find_dataset
from afdcd.d2.loader import evaluation_loader
from afdcd.d2.panoptic import PanopticEvaluator
from afdcd.d2.panoptic_data import PANOPTIC_TYPES, is_standard
from afdcd.data import Dataset, read_labels
from afdcd.engine.build import SettingsReader
from afdcd.engine.precision import autocast
from afdcd.evaluation import BoundaryIoU, predict
from afdcd.evaluation.confusion_plot import write_confusion
from afdcd.tasks import SemanticSegmentation, Task, task_of


def evaluate(
    cfg: Any,
    model: nn.Module,
    *,
    loader_of: Callable[[Any, str], Any] = evaluation_loader,
    evaluator_of: Callable[[Any, str], DatasetEvaluator] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Score a model on every data set of ``DATASETS.TEST``.

    Args:
        cfg: the model's config.
        model: not wrapped; left in the mode it was in.
        loader_of, evaluator_of: give the loader and the evaluator of a config's data set; by
            default `evaluation_loader` and `build_evaluator`.

    Returns:
        by data set, then by task (``sem_seg``, ``panoptic_seg``, ``bbox``, ``segm``), the figures
        in percent; empty but on the main process.
    """
    results = {}
    for name in cfg.DATASETS.TEST:
        evaluator = (evaluator_of or build_evaluator)(cfg, name)
        results[name] = inference_on_dataset(
            _Predictor(cfg, model), loader_of(cfg, name), evaluator
        )
    return {name: {} if found is None else dict(found) for name, found in results.items()}


class _Predictor:
    """The model in evaluation mode, over scales, flips and autocast as the config says."""

    def __init__(self, cfg: Any, model: nn.Module) -> None:
        self.cfg, self.model = cfg, model
        self.settings = SettingsReader(cfg).evaluation()

    def __call__(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with ExitStack() as stack:
            stack.enter_context(inference_context(self.model))
            stack.enter_context(torch.no_grad())
            stack.enter_context(
                autocast(self.settings.precision, torch.device(self.cfg.MODEL.DEVICE))
            )
            if self.cfg.INPUT.MAPPER != "scale_crop":
                return self.model(inputs)
            return predict(self.settings.inference, self.model, inputs)


def build_evaluator(cfg: Any, name: str) -> DatasetEvaluator:
    """The evaluator of a data set's ``evaluator_type``, or all of them as one.

    Raises:
        ValueError: see `build_evaluators`.
    """
    found = build_evaluators(cfg, name)
    return found[0] if len(found) == 1 else DatasetEvaluators(found)


def build_evaluators(cfg: Any, name: str) -> list[DatasetEvaluator]:
    """The evaluators of a data set's ``evaluator_type``.

    Raises:
        ValueError: a type that isn't supported here, with what is.
    """
    kind = getattr(MetadataCatalog.get(name), "evaluator_type", "sem_seg")
    theirs = cfg.INPUT.MAPPER != "scale_crop"
    if not theirs or kind == "sem_seg":
        folder = Path(cfg.OUTPUT_DIR) if cfg.TEST.CONFUSION else None
        dataset = find_dataset(name, in_catalog=theirs)
        task = task_of(dataset)
        if isinstance(task, SemanticSegmentation):
            return [SemanticEvaluator(dataset, name if theirs else catalog_name(name), folder)]
        return [TaskEvaluator(task, folder)]
    if problem := evaluator_problem(name):
        raise ValueError(problem)
    if kind == "coco":
        return [COCOEvaluator(name, output_dir=cfg.OUTPUT_DIR)]
    return _panoptic(cfg, name)


def evaluator_problem(name: str) -> str:
    """Why a data set can't be evaluated here; nothing where it can."""
    kind = getattr(MetadataCatalog.get(name), "evaluator_type", "sem_seg")
    if kind in ("sem_seg", "coco", *PANOPTIC_TYPES):
        return ""
    reason = (
        "Detectron2's Cityscapes evaluators import a module that its public releases lack "
        "('deeplearning'). cityscapes_fine_panoptic_val works, and cityscapes_fine_sem_seg_val "
        "with INPUT.MAPPER scale_crop"
        if kind.startswith("cityscapes")
        else f"supported are sem_seg, coco, {', '.join(PANOPTIC_TYPES)}"
    )
    return f"{name} has the evaluator type {kind!r}: {reason}"


def _panoptic(cfg: Any, name: str) -> list[DatasetEvaluator]:
    """Panoptic quality; for data sets in the separated form also mIoU of stuff and AP."""
    metadata = MetadataCatalog.get(name)
    # Detectron2's own panoptic evaluator needs panopticapi, which is not on PyPI.
    found: list[DatasetEvaluator] = [
        PanopticEvaluator(name, separated=trained_architecture(cfg) == "PanopticFPN")
    ]
    if is_standard(metadata):
        return found  # Detectron2's other evaluators want things and stuff numbered on their own
    found.append(SemSegEvaluator(name))
    if cfg.MODEL.MASK_ON and getattr(metadata, "json_file", None):
        found.append(COCOEvaluator(name, output_dir=cfg.OUTPUT_DIR))
    return found


class TaskEvaluator(DatasetEvaluator):
    """A task's own evaluator as Detectron2's, on any number of processes.

    Args:
        task: on the data set to score.
        folder: where pictures of the scores are drawn; not at all when None.
    """

    def __init__(self, task: Task, folder: Path | None = None) -> None:
        self._task, self._folder = task, folder
        self._evaluator = task.evaluator()

    def reset(self) -> None:
        self._evaluator = self._task.evaluator()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        parts = comm.gather(self._evaluator)
        if not comm.is_main_process():
            return None
        for part in parts[1:]:
            parts[0].merge(part)
        if self._folder is not None:
            self._task.draw_evaluation(parts[0], self._folder)
        return {self._task.TITLE: parts[0].evaluate()}


class SemanticEvaluator(SemSegEvaluator):
    """Detectron2's evaluator, with the boundary IoU of `afdcd.evaluation`.

    So that both runtimes give the same figures: Detectron2's boundaries are those of label numbers
    (the difference of an eroded label map), which depend on the order of the classes.

    Args:
        dataset: of semantic segmentation.
        name: of it in Detectron2's catalogs.
        folder: where the confusion matrix is drawn; not at all when None.
    """

    def __init__(self, dataset: Dataset, name: str, folder: Path | None = None) -> None:

        def load(path: str, dtype: Any) -> np.ndarray:
            self._labels = read_labels(path, dataset.label_map)
            return self._labels.astype(dtype)  # a copy, which Detectron2 writes into

        super().__init__(name, sem_seg_loading_fn=load)
        self._compute_boundary_iou = False
        self._folder, self._title = folder, dataset.spec.name

    def reset(self) -> None:
        super().reset()
        self._boundary = BoundaryIoU(self._num_classes, ignore_label=self._ignore_label)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for item, output in zip(inputs, outputs, strict=True):
            super().process([item], [output])  # reads the labels, once for both scores
            prediction = output["sem_seg"].argmax(dim=0).cpu().numpy()
            self._boundary.update(prediction, self._labels)

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[Any]:
        """Nothing: nobody asks for the predictions of all images at once."""
        return []

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        results = super().evaluate()  # sums the matrix over the processes
        parts = comm.gather(self._boundary)
        if not comm.is_main_process():
            return None
        for part in parts[1:]:
            parts[0].merge(part)
        results["sem_seg"] |= parts[0].results(self._class_names)
        if self._folder is not None:
            # Columns are true classes; the last row and column hold what is ignored.
            counts = self._conf_matrix[:-1, :-1].T
            write_confusion(self._folder, self._title, counts, self._class_names)
        return results
