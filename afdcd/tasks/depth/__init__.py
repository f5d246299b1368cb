"""Monocular depth: a distance for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from tabulate import tabulate

from afdcd.data.datasets import Dataset
from afdcd.data.depth import DepthReader, DepthSpec
from afdcd.evaluation.depth import Alignment, DepthEvaluator, depth_of
from afdcd.tasks.depth.drawing import add_legend, depth_picture
from afdcd.tasks.depth.loss import scale_and_shift_invariant, scale_invariant_log
from afdcd.tasks.depth.scan import judge_depths
from afdcd.tasks.registry import TASKS
from afdcd.tasks.task import Evaluator, Task
from afdcd.utils.findings import Report

# A teacher knows something of the data if its error is below this share of a constant's.
_KNOWING = 0.9


@TASKS.register("depth")
class Depth(Task):
    """Depth in metres. The model's one output channel is its natural logarithm.

    Raises:
        ValueError: the data set doesn't say how its depths are stored.

    Attributes:
        INVARIANCE: see `scale_invariant_log`.
        ALIGNMENT: of predictions, before they are scored; see `depth_figures`.
        UNIT: of depths, in pictures.
        DOUBTS: what else may be wrong with a teacher that knows nothing.
    """

    TITLE = "depth"
    LOSS = "loss_depth"
    METRIC = "AbsRel"
    HIGHER_IS_BETTER = False
    INVARIANCE: ClassVar[float] = 0.5
    ALIGNMENT: ClassVar[Alignment] = "none"
    UNIT: ClassVar[str] = " m"
    DOUBTS: ClassVar[str] = "and is the scale of its depths?"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        spec = dataset.spec
        if not isinstance(spec, DepthSpec):
            raise ValueError(
                f"{spec.name} is of the task {spec.task}, but doesn't say how its depths are "
                "stored: register it as a DepthSpec (afdcd/data/depth.py)"
            )
        self.reader = DepthReader(spec.form)

    @property
    def channels(self) -> int:
        return 1

    def targets(self) -> DepthReader:
        return self.reader

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return scale_invariant_log(prediction, target, invariance=self.INVARIANCE)

    def evaluator(self) -> DepthEvaluator:
        return DepthEvaluator(self.reader, alignment=self.ALIGNMENT)

    def describe(self, figures: Mapping[str, float]) -> str:
        rmse, below = f"RMSE {{:.3g}}{self.UNIT}", "below 1.25: {:.2f} %"
        return self.line(figures, {"AbsRel": "AbsRel {:.2f} %", "RMSE": rmse, "delta1": below})

    def table(self, figures: Mapping[str, float]) -> str:
        rows = [[name, f"{value:.4f}"] for name, value in figures.items()]
        return tabulate(rows, disable_numparse=True, colalign=("left", "right"))

    def decode(self, output: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Depths, float32 [H, W] above 0."""
        return depth_of(output[self.KEY][0])

    def picture(self, values: np.ndarray) -> np.ndarray:
        return depth_picture(values)

    def overlay(self, image: np.ndarray, values: np.ndarray, alpha: float) -> np.ndarray:
        """With a legend that says which depths the brightest and the darkest colour are."""
        return add_legend(super().overlay(image, values, alpha), values, self.UNIT)

    def check_files(self, *, limit: int | None, training: bool, report: Report) -> None:
        judge_depths(self.dataset, limit=limit, training=training, report=report)

    def check_teacher(self, evaluator: Evaluator, images: int, report: Report) -> None:
        assert isinstance(evaluator, DepthEvaluator)
        value, constant = evaluator.evaluate()[self.METRIC], evaluator.constant()
        name = self.dataset.spec.name
        report.facts["teacher"] = {
            f"{self.METRIC} on {images} images of {name}": value,
            "each image's median everywhere would have": constant,
        }
        if value >= _KNOWING * constant:
            report.fix(
                "teacher",
                f"the teacher's {self.METRIC} on {images} images of {name} is {value:.2f} %, no "
                f"better than one value everywhere ({constant:.2f} %): are its weights trained, "
                f"are INPUT.FORMAT and PIXEL_MEAN those of its training, {self.DOUBTS}",
            )


@TASKS.register("relative_depth")
class RelativeDepth(Depth):
    """Depth up to a factor of each image's own, as of data sets without a unit.

    The loss doesn't depend on the factor, and predictions are scored after median scaling.
    """

    INVARIANCE = 1.0
    ALIGNMENT = "median"
    UNIT = ""


@TASKS.register("relative_disparity")
class RelativeDisparity(Depth):
    """Disparity, 1 / depth, up to a factor and an offset of each image's own.

    So come the maps of MiDaS, Depth Anything and their like, and of stereo pairs without
    calibration. The loss depends on neither; predictions are fitted to the truth before they are
    scored. The model's output is minus the natural logarithm of the disparity.
    """

    METRIC = "FitMAE"
    ALIGNMENT = "affine"
    UNIT = ""
    DOUBTS = "and are large values near (disparities), rather than far?"

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return scale_and_shift_invariant(prediction, target)

    def describe(self, figures: Mapping[str, float]) -> str:
        return self.line(figures, {name: f"{name} {{:.2f}} %" for name in ("FitMAE", "FitRMSE")})

    def decode(self, output: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Disparities, float32 [H, W] above 0."""
        return depth_of(-output[self.KEY][0])

    def picture(self, values: np.ndarray) -> np.ndarray:
        return depth_picture(1 / values)

    def overlay(self, image: np.ndarray, values: np.ndarray, alpha: float) -> np.ndarray:
        """Without a legend, whose numbers would mean nothing."""
        return Task.overlay(self, image, values, alpha)
