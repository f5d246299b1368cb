"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from afdcd.data import DatasetSpec, read_labels
from afdcd.data.datasets import Dataset
from afdcd.data.labels import LabelMap
from afdcd.data.palette import bit_palette
from afdcd.data.spec import Record
from afdcd.data.targets import LabelReader, TargetReader
from afdcd.evaluation import SegmentationEvaluator
from afdcd.evaluation.confusion_plot import write_confusion
from afdcd.evaluation.scores import class_table
from afdcd.models.heads.segmentation_head import segmentation_cross_entropy
from afdcd.report.panels import colorize
from afdcd.tasks.registry import TASKS
from afdcd.tasks.semantic_segmentation.drawing import stored_labels
from afdcd.tasks.semantic_segmentation.scan import judge_classes, judge_files
from afdcd.tasks.semantic_segmentation.teacher import judge_teacher
from afdcd.tasks.task import Evaluator, PredictionStyle, Task
from afdcd.utils.files import write_png
from afdcd.utils.findings import Report
from afdcd.utils.problems import Problem


@TASKS.register("semantic_segmentation")
class SemanticSegmentation(Task):
    """A class for every pixel: cross-entropy, mean intersection over union."""

    LOSS = "loss_sem_seg"
    METRIC = "mIoU"

    @property
    def channels(self) -> int:
        return len(self.dataset.spec.classes)

    def targets(self) -> TargetReader:
        return LabelReader(self.dataset.label_map)

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ignored = self.dataset.spec.ignore_label
        return segmentation_cross_entropy(prediction, target, ignore_value=ignored)

    def bind(self, model: nn.Module) -> None:
        """Do nothing: every segmentation head has this loss, Detectron2's included."""

    def evaluator(self) -> SegmentationEvaluator:
        spec, label_map = self.dataset.spec, self.dataset.label_map

        def labels_of(record: Record) -> np.ndarray:
            return read_labels(record["sem_seg_file_name"], label_map)

        return SegmentationEvaluator(spec.classes, labels_of, ignore_label=spec.ignore_label)

    def describe(self, figures: Mapping[str, float]) -> str:
        words = {"mIoU": "mIoU", "pACC": "pixel accuracy", "mBoundaryIoU": "boundary IoU"}
        return self.line(figures, {name: f"{word} {{:.2f}}" for name, word in words.items()})

    def table(self, figures: Mapping[str, float]) -> str:
        return class_table(figures)

    def draw_evaluation(self, evaluator: Evaluator, folder: Path) -> None:
        assert isinstance(evaluator, SegmentationEvaluator)
        spec = self.dataset.spec
        write_confusion(folder, spec.name, evaluator.confusion.counts, spec.classes)

    def decode(self, output: Mapping[str, torch.Tensor]) -> np.ndarray:
        return output[self.KEY].argmax(0).cpu().numpy()

    def confidence(self, output: Mapping[str, torch.Tensor]) -> float:
        """The mean over the pixels of the likeliest class's probability."""
        return float(output[self.KEY].float().softmax(0).amax(0).mean())

    def picture(self, values: np.ndarray) -> np.ndarray:
        return colorize(values, self.dataset.spec.colors)

    def style_problems(self, style: PredictionStyle) -> list[str]:
        if style.official and self.dataset.spec.official is None:
            return ["--official-values needs a data set with such values and the model's classes"]
        return []

    def value_suffix(self, style: PredictionStyle) -> str:
        """``_labels.png``; of official values and frames ``.png``."""
        return ".png" if style.official or style.plain_names else "_labels.png"

    def write_values(
        self, folder: Path, name: str, values: np.ndarray, style: PredictionStyle
    ) -> None:
        """Label maps, as 8 or 16-bit PNG files."""
        spec = self.dataset.spec
        label_map = spec.official if style.official else None
        stored = stored_labels(values, len(spec.classes), label_map)
        write_png(folder / f"{name}{self.value_suffix(style)}", stored)

    def channel_problems(self, channels: int) -> list[str]:
        if channels == self.channels:
            return []
        return [
            Problem(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {channels}, but {self.dataset.spec.name} has "
                f"{self.channels} classes",
                "classes",
            )
        ]

    def ignore_problems(self, ignore_value: int) -> list[str]:
        return ignore_value_problems(
            self.dataset.spec.name, self.dataset.spec.ignore_label, ignore_value
        )

    def mixing_problems(self, other: Task) -> list[str]:
        """What is wrong unless two data sets have the same classes in the same order."""
        first, second = self.dataset.spec, other.dataset.spec
        return class_order_problems(first.classes, second.classes, first.name, second.name)

    def check_files(self, *, limit: int | None, training: bool, report: Report) -> None:
        scan = judge_files(self.dataset, limit=limit, report=report)
        judge_classes([(self.dataset, scan)], report, training=training)

    def check_training_files(
        self, others: Sequence[Task], *, limit: int | None, report: Report
    ) -> None:
        """Data sets of the same classes are judged together: each may lack some."""
        classes = self.dataset.spec.classes
        alike = [task.dataset for task in others if task.dataset.spec.classes == classes]
        parts = [
            (dataset, judge_files(dataset, limit=limit, report=report))
            for dataset in (self.dataset, *alike)
        ]
        judge_classes(parts, report)
        for task in others:
            if task.dataset.spec.classes != classes:
                task.check_files(limit=limit, training=True, report=report)

    def check_teacher(self, evaluator: Evaluator, images: int, report: Report) -> None:
        assert isinstance(evaluator, SegmentationEvaluator)
        judge_teacher(evaluator.confusion, self.dataset.spec, images, report)

    @classmethod
    def without_data(
        cls, channels: int, window: tuple[float, float] | None = None
    ) -> SemanticSegmentation:
        """The task of a model whose classes aren't known: their numbers are their names.

        Args:
            channels: how many classes there are.
            window: values of its images that become 0 and 255; see `DatasetSpec`.
        """
        names = tuple(str(number) for number in range(channels))
        colors = tuple(bit_palette(channels, first=1))
        spec = DatasetSpec("(no data set)", names, colors, _no_files, window=window)
        return cls(Dataset(spec, [], LabelMap(channels)))


def _no_files(root: Path) -> tuple[list[Record], LabelMap]:
    raise NotImplementedError("no files: the data set isn't known")


def ignore_value_problems(name: str, ignore_label: int, ignore_value: int) -> list[str]:
    """Whether the head's loss leaves out the pixels of a data set that don't count.

    Args:
        name: of the data set.
        ignore_label: of its pixels that don't count.
        ignore_value: ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE``.
    """
    if ignore_value == ignore_label:
        return []
    return [
        Problem(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {ignore_value}, but the pixels of {name} that "
            f"don't count have the label {ignore_label}, and {ignore_value} would be left out of "
            f"the loss: leave IGNORE_VALUE at {ignore_label} (which stored values don't count is "
            "said by the data set, e.g. by labels.ignore of a description)",
            "dataset",
        )
    ]


def class_order_problems(
    first: tuple[str, ...], second: tuple[str, ...], first_name: str, second_name: str
) -> list[str]:
    """How the classes of two data sets differ; nothing where they agree."""
    if first == second:
        return []
    if len(first) != len(second):
        return [
            Problem(
                f"{first_name} has {len(first)} classes and {second_name} {len(second)}",
                "class-order",
            )
        ]
    differing = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    examples = "; ".join(f"{k} is {first[k]} and {second[k]}" for k in differing[:3])
    kind = "order" if sorted(first) == sorted(second) else "names"
    return [
        Problem(
            f"the classes of {first_name} and {second_name} differ in {kind}: {examples}. Logits "
            "are compared channel by channel: bring both into the same order",
            "class-order",
        )
    ]
