"""What a dense task is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import torch
from torch import nn

from afdcd.data import DataError, Dataset
from afdcd.data.images import examine_image
from afdcd.data.listing import spread
from afdcd.data.spec import Record
from afdcd.data.targets import TargetReader, size_problem
from afdcd.tasks.registry import TASKS
from afdcd.utils.files import write_atomically, write_png
from afdcd.utils.findings import Report
from afdcd.utils.progress import progress

# Where Detectron2's SemanticSegmentor, and ours, look for a dense target and put a dense
# prediction, whatever it shows.
DENSE = "sem_seg"
_OVERLAY = "_overlay.png"


class Evaluator(Protocol):
    """Scores predictions, in the form of Detectron2's ``DatasetEvaluator``."""

    def reset(self) -> None:
        """Forget all images."""

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add images: the model's inputs, which are records, and its outputs."""

    def merge(self, other: Any) -> None:
        """Add what another evaluator of the same kind, in another process, has counted."""

    def evaluate(self) -> dict[str, float]:
        """The figures by name, the task's `Task.METRIC` among them; NaN for one without a value."""


@dataclass(frozen=True)
class PredictionStyle:
    """How predictions are written.

    Attributes:
        alpha: opacity of the prediction over the image.
        overlay: whether ``<name>_overlay.png``, the prediction over the image, is written.
        values: whether the prediction itself is written.
        official: whether that is in the form that the data set's owners expect.
        plain_names: whether values are written under the bare name, as those of video frames are.
    """

    alpha: float = 0.5
    overlay: bool = True
    values: bool = True
    official: bool = False
    plain_names: bool = False


class Task:
    """One dense task on one data set; subclass it and register the class in `TASKS`.

    A data set names its task (``DatasetSpec.task``). Below, K is the number of channels of the
    model's output, ``MODEL.SEM_SEG_HEAD.NUM_CLASSES``.

    Args:
        dataset: whose targets are learnt.

    Attributes:
        TITLE: what figures are filed under, as in ``results.json``.
        KEY: of targets in samples and of predictions in outputs.
        LOSS: name of the loss.
        METRIC: the figure that decides which student is best.
        HIGHER_IS_BETTER: whether a higher ``METRIC`` is better.
    """

    TITLE: ClassVar[str] = DENSE
    KEY: ClassVar[str] = DENSE
    LOSS: ClassVar[str] = "loss_task"
    METRIC: ClassVar[str]
    HIGHER_IS_BETTER: ClassVar[bool] = True

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    def channels(self) -> int:
        """K, the number of channels that the model must have."""
        raise NotImplementedError

    # --- training ---------------------------------------------------------------------------

    def targets(self) -> TargetReader:
        """How a record's target is read."""
        raise NotImplementedError

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of a head's output.

        Args:
            prediction: [N, K, h, w], at the head's size.
            target: [N, H, W].

        Returns:
            scalar.
        """
        raise NotImplementedError

    def bind(self, model: nn.Module) -> None:
        """Give the model's head this task's loss.

        Raises:
            ValueError: the head has a loss of its own.
        """
        head: Any = getattr(model, "sem_seg_head", None)
        if not hasattr(head, "set_loss"):
            raise ValueError(
                f"the task of {self.dataset.spec.name} needs a head that takes its loss (one of "
                f"this package's, or one with a method set_loss); got {type(head).__name__}"
            )
        head.set_loss(self.LOSS, self.loss)
        head.ignore_value = self.targets().pad_value  # of a network that pads its images

    # --- scores -----------------------------------------------------------------------------

    def evaluator(self) -> Evaluator:
        """A new evaluator on the data set's targets."""
        raise NotImplementedError

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the metric is better than another; any is better than None."""
        if math.isnan(value):
            return False
        return than is None or (value > than if self.HIGHER_IS_BETTER else value < than)

    def describe(self, figures: Mapping[str, float]) -> str:
        """The most important figures in one line, of those that are there."""
        return self.line(figures, {self.METRIC: f"{self.METRIC} {{:.4g}}"})

    @staticmethod
    def line(figures: Mapping[str, float], forms: Mapping[str, str]) -> str:
        """The figures that are there, in one line, each in its form.

        A record may hold some of them alone, since it may be of the other runtime.
        """
        there = (form.format(figures[name]) for name, form in forms.items() if name in figures)
        return ", ".join(there)

    def table(self, figures: Mapping[str, float]) -> str:
        """All figures, for a person."""
        return "\n".join(f"{name}: {value:.4g}" for name, value in figures.items())

    def draw_evaluation(self, evaluator: Evaluator, folder: Path) -> None:
        """Draw pictures of an evaluation into a folder; none by default."""

    # --- predictions ------------------------------------------------------------------------

    def decode(self, output: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Convert an output to what is written: [H, W]; by default its first channel."""
        return output[self.KEY][0].float().cpu().numpy()

    def picture(self, values: np.ndarray) -> np.ndarray:
        """What `decode` gives as a BGR picture [H, W, 3]; by default coloured from low to high."""
        low, high = float(values.min()), float(values.max())
        grey = (255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
        return cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)

    def overlay(self, image: np.ndarray, values: np.ndarray, alpha: float) -> np.ndarray:
        """A BGR image with the prediction on it."""
        return cv2.addWeighted(self.picture(values), alpha, image, 1 - alpha, 0)

    def style_problems(self, style: PredictionStyle) -> list[str]:
        """Why predictions can't be written in this style."""
        name = self.dataset.spec.name
        return [f"--official-values: {name} has no such form"] if style.official else []

    def value_suffix(self, style: PredictionStyle) -> str:
        """What `write_values` adds to a name, to tell beforehand which files come of it."""
        return ".npy"

    def file_names(self, name: str, style: PredictionStyle) -> list[str]:
        """The files that `write` writes in this style."""
        files = [f"{name}{_OVERLAY}"] if style.overlay else []
        return files + ([f"{name}{self.value_suffix(style)}"] if style.values else [])

    def write_values(
        self, folder: Path, name: str, values: np.ndarray, style: PredictionStyle
    ) -> None:
        """Write what `decode` gives to ``<name><value_suffix>``; by default as an array."""
        path = folder / f"{name}{self.value_suffix(style)}"
        write_atomically(path, lambda file: np.save(file, values))

    def write(
        self,
        folder: Path,
        name: str,
        image: np.ndarray,
        values: np.ndarray,
        style: PredictionStyle,
    ) -> None:
        """Write a prediction as the style says."""
        if style.overlay:
            picture = self.overlay(image, values, style.alpha)
            write_png(folder / f"{name}{_OVERLAY}", picture)
        if style.values:
            self.write_values(folder, name, values, style)

    def confidence(self, output: Mapping[str, torch.Tensor]) -> float | None:
        """How sure a model is of an output, on average, from 0 to 1; None where nobody knows."""
        return None

    # --- checks -----------------------------------------------------------------------------

    def channel_problems(self, channels: int) -> list[str]:
        """What is wrong if a model with this many channels doesn't fit."""
        if channels == self.channels:
            return []
        return [
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {channels}, but the task of "
            f"{self.dataset.spec.name} needs {self.channels}"
        ]

    def ignore_problems(self, ignore_value: int) -> list[str]:
        """Whether a head that leaves this label out of its loss fits the targets."""
        return []

    def mixing_problems(self, other: Task) -> list[str]:
        """Why two data sets can't be trained on together, or be one run's training and test set."""
        return []

    def pair_problem(self, record: Record) -> str:
        """What is wrong with a record's files; empty if nothing is."""
        try:
            target = self.targets()(record)
            image, damage = examine_image(record["file_name"], record.get("window"))
        except DataError as error:
            return str(error)
        # Files of a published data set are as they are.
        own = self.dataset.spec.expected is None
        return size_problem(record, image, target) or (damage if own else "")

    def check_files(self, *, limit: int | None, training: bool, report: Report) -> None:
        """Open files of the data set and judge what they hold, for the doctor.

        Args:
            limit: number of records, evenly spread; None for all.
            training: whether it is a training set.
            report: takes what is found.
        """
        records = spread(self.dataset.records, limit)
        opened = progress(records, f"checking {self.dataset.spec.name}")
        problems = [text for record in opened if (text := self.pair_problem(record))]
        report.fix("file", *problems[:5])
        report.facts[f"files of {self.dataset.spec.name}"] = {
            "opened": len(records),
            "of": len(self.dataset.records),
            "unusable": len(problems),
        }

    def check_training_files(
        self, others: Sequence[Task], *, limit: int | None, report: Report
    ) -> None:
        """Open files of all training sets, of this task and of others, as `check_files` does."""
        for task in (self, *others):
            task.check_files(limit=limit, training=True, report=report)

    def check_teacher(self, evaluator: Evaluator, images: int, report: Report) -> None:
        """Judge a teacher by its scores on some images, for the doctor."""
        value = evaluator.evaluate()[self.METRIC]
        name = self.dataset.spec.name
        report.facts["teacher"] = {f"{self.METRIC} on {images} images of {name}": value}


def task_of(dataset: Dataset) -> Task:
    """The task of a data set.

    Raises:
        ValueError: its spec doesn't name a registered task.
    """
    task: Task = TASKS.get(dataset.spec.task)(dataset)
    return task
