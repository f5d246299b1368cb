"""How a run trains: optimizer, schedule, precision, batches, output. Each checks itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from afdcd.data.settings import LoadingSettings
from afdcd.evaluation.settings import InferenceSettings
from afdcd.utils.problems import Problem, refuse

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
OPTIMIZERS = ("SGD", "ADAMW")
WARMUPS = ("linear", "constant")


@dataclass(frozen=True)
class ScheduleSettings:
    """The polynomial learning rate: see `afdcd.engine.schedule.learning_rate`.

    Attributes:
        base_lr: at the start.
        max_iter: iterations in all.
        power: of the polynomial.
        constant_ending: share of ``base_lr`` that it never falls below; 0 for none.
        warmup_iters: iterations that it rises over.
        warmup_factor: share of it at the first iteration.
        warmup_method: ``linear`` or ``constant``.

    Raises:
        SettingsError: a value that can't work.
    """

    base_lr: float
    max_iter: int
    power: float = 0.9
    constant_ending: float = 0.0
    warmup_iters: int = 0
    warmup_factor: float = 0.001
    warmup_method: str = "linear"

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.max_iter < 1:
            yield f"SOLVER.MAX_ITER must be at least 1; got {self.max_iter}"
        if not self.base_lr > 0 or not math.isfinite(self.base_lr):
            yield f"SOLVER.BASE_LR must be above 0; got {self.base_lr}"
        elif self.base_lr > 1:
            yield Problem(
                f"SOLVER.BASE_LR {self.base_lr:g} is far above what SGD can take (usual: 0.02; at "
                "most 1)",
                "learning-rate",
            )
        if not 0 <= self.power < math.inf:
            yield f"SOLVER.POLY_LR_POWER must be at least 0 and finite; got {self.power}"
        if not 0 <= self.constant_ending <= 1:
            yield f"SOLVER.POLY_LR_CONSTANT_ENDING must be from 0 to 1; got {self.constant_ending}"
        if self.warmup_iters < 0:
            yield f"SOLVER.WARMUP_ITERS must be at least 0; got {self.warmup_iters}"
        if not 0 <= self.warmup_factor <= 1:
            yield f"SOLVER.WARMUP_FACTOR must be from 0 to 1; got {self.warmup_factor}"
        if self.warmup_method not in WARMUPS:
            yield (
                f"SOLVER.WARMUP_METHOD must be one of {', '.join(WARMUPS)}; got "
                f"{self.warmup_method!r}"
            )


@dataclass(frozen=True)
class OptimizerSettings:
    """SGD or AdamW: see `afdcd.engine.optimizer.build_optimizer`.

    Attributes:
        base_lr: learning rate; the schedule sets it anew for each step.
        name: ``SGD`` or ``ADAMW`` (with PyTorch's own betas and epsilon).
        momentum, nesterov: of SGD alone.
        weight_decay: of everything but what has one of its own.
        weight_decay_norm, weight_decay_bias: of normalizations and biases; None for the same.
        bias_lr_factor: learning rate of biases, in times the others'.
        backbone_lr_factor: learning rate of a model's ``backbone``, in times the others'.
        distiller_lr_factor: learning rate of a distiller's own modules, in times the student's.

    Raises:
        SettingsError: a value that can't work.
    """

    base_lr: float
    name: str = "SGD"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    weight_decay_norm: float | None = None
    weight_decay_bias: float | None = None
    bias_lr_factor: float = 1.0
    backbone_lr_factor: float = 1.0
    distiller_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.name not in OPTIMIZERS:
            yield f"SOLVER.OPTIMIZER must be one of {', '.join(OPTIMIZERS)}; got {self.name!r}"
        elif self.name == "ADAMW" and self.base_lr > 0.01:
            yield Problem(
                f"SOLVER.BASE_LR {self.base_lr:g} is far above what AdamW can take (usual: 0.0001; "
                "at most 0.01)",
                "learning-rate",
            )
        if self.name == "SGD" and not 0 <= self.momentum < 1:
            yield f"SOLVER.MOMENTUM must be from 0 to below 1; got {self.momentum}"
        if self.name == "SGD" and self.nesterov and not self.momentum > 0:
            yield "SOLVER.NESTEROV takes a SOLVER.MOMENTUM above 0; got 0"
        for key, value in (
            ("SOLVER.WEIGHT_DECAY", self.weight_decay),
            ("SOLVER.WEIGHT_DECAY_NORM", self.weight_decay_norm or 0.0),
            ("SOLVER.WEIGHT_DECAY_BIAS", self.weight_decay_bias or 0.0),
        ):
            if not 0 <= value < math.inf:
                yield f"{key} must be at least 0 and finite; got {value}"
        for key, value in (
            ("SOLVER.BIAS_LR_FACTOR", self.bias_lr_factor),
            ("SOLVER.BACKBONE_MULTIPLIER", self.backbone_lr_factor),
            ("MODEL.DISTILLER.LR_FACTOR", self.distiller_lr_factor),
        ):
            if not 0 < value < math.inf:
                yield f"{key} must be above 0 and finite; got {value}"


@dataclass(frozen=True)
class PrecisionSettings:
    """Automatic mixed precision: see `afdcd.engine.precision`.

    Attributes:
        enabled: whether forward passes run in lower precision.
        dtype: ``float16`` or ``bfloat16``.

    Raises:
        SettingsError: another dtype.
    """

    enabled: bool = False
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            refuse([f"SOLVER.AMP.DTYPE must be one of {', '.join(DTYPES)}; got {self.dtype}"])


@dataclass(frozen=True)
class BatchSettings:
    """How the images of an iteration are shared out.

    Attributes:
        images: of an iteration, on all processes together.
        parts: that each process works on its share in, one after the other.
        processes: that share the images.
        pooled_head: name of a head that normalizes averages of whole images by the statistics of
            a batch, which takes two images at least; empty where there is none.
        synchronised: whether BatchNorm takes the images of all processes together.
        unlabeled: how many of the images have no labels; 0 where all or none have some.

    Raises:
        SettingsError: the images can't be shared out so.
    """

    images: int
    parts: int = 1
    processes: int = 1
    pooled_head: str = ""
    synchronised: bool = False
    unlabeled: int = 0

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        images, parts, processes = self.images, self.parts, self.processes
        if parts < 1:
            yield f"SOLVER.ACCUMULATE must be at least 1; got {parts}"
            return
        least = 2 * parts * (1 if self.synchronised else processes)
        if images < least and self.pooled_head:
            yield (
                f"SOLVER.IMS_PER_BATCH must be at least {least}, since {self.pooled_head} "
                "normalizes image averages over a batch, which takes two images"
                + ("" if least == 2 else " in each part (SOLVER.ACCUMULATE) of each process")
                + f"; got {images}"
            )
        elif images < 1 or images % (processes * parts):
            among = f"{parts} parts (SOLVER.ACCUMULATE)"
            if processes > 1:
                among += f" in {processes} processes"
            yield f"SOLVER.IMS_PER_BATCH {images} can't be shared out evenly to {among}"
        elif self.unlabeled % (processes * parts):
            yield (
                f"DATASETS.UNLABELED_SHARE: {self.unlabeled} of {images} images can't be shared "
                f"out evenly to {processes} processes and {parts} parts (SOLVER.ACCUMULATE), each "
                "of which needs equally many with labels"
            )


@dataclass(frozen=True)
class OutputSettings:
    """Where a run is written, and how often.

    Attributes:
        folder: ``OUTPUT_DIR``.
        checkpoint_period, eval_period: in iterations; 0 for at the end only.
        kept: numbered checkpoints that stay.
        confusion: whether evaluations draw the confusion matrix.

    Raises:
        SettingsError: a period below 0, or no checkpoint to keep.
    """

    folder: Path
    checkpoint_period: int = 5000
    eval_period: int = 0
    kept: int = 2
    confusion: bool = False

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        if str(self.folder) in ("", "."):
            yield "OUTPUT_DIR is empty: name a folder"
        elif "\0" in str(self.folder):
            yield f"OUTPUT_DIR can't hold a null character; got {str(self.folder)!r}"
        for key, value, least in (
            ("SOLVER.CHECKPOINT_PERIOD", self.checkpoint_period, 0),
            ("TEST.EVAL_PERIOD", self.eval_period, 0),
            ("SOLVER.CHECKPOINTS_KEPT", self.kept, 1),
        ):
            if value < least:
                yield f"{key} must be at least {least}; got {value}"


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is scored.

    Attributes:
        loading, inference, precision: see their classes.
        pictures: folder for pictures of the scores; None for none.
    """

    loading: LoadingSettings
    inference: InferenceSettings
    precision: PrecisionSettings
    pictures: Path | None = None


@dataclass(frozen=True)
class TrainingSettings:
    """All of the above, for a trainer.

    Attributes:
        schedule, optimizer, precision, batch, loading, inference, output: see their classes.
        clip_distiller: L2 norm that a distiller's own gradients are clipped to; 0 for not at all.
        seed: of the run; below 0 for one that is drawn.
        device: that is asked for.
    """

    schedule: ScheduleSettings
    optimizer: OptimizerSettings
    precision: PrecisionSettings
    batch: BatchSettings
    loading: LoadingSettings
    inference: InferenceSettings
    output: OutputSettings
    clip_distiller: float
    seed: int
    device: str

    @property
    def max_iter(self) -> int:
        """Iterations in all."""
        return self.schedule.max_iter

    @property
    def evaluation(self) -> EvaluationSettings:
        """How the student is scored on the way and at the end."""
        pictures = self.output.folder if self.output.confusion else None
        return EvaluationSettings(self.loading, self.inference, self.precision, pictures)

    def evaluates_after(self, done: int) -> bool:
        """Whether an evaluation is due once ``done`` iterations are done."""
        return done == self.max_iter or _due(self.output.eval_period, done)

    def missed_evaluation(self, done: int, evaluated: int) -> bool:
        """Whether a run stopped between a checkpoint and the evaluation due after it.

        Args:
            done: iterations that are done.
            evaluated: that were done at the last evaluation.
        """
        return done > 0 and self.evaluates_after(done) and evaluated != done

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is due once ``done`` iterations are done."""
        return done == self.max_iter or _due(self.output.checkpoint_period, done)


def _due(period: int, done: int) -> bool:
    return period > 0 and done % period == 0
