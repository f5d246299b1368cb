"""How a run trains, as a config describes it: the one place that reads ``SOLVER``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from afdcd.config import flat_value
from afdcd.data.build import batch_mix, loading_settings
from afdcd.distill import distiller_settings
from afdcd.engine.settings import (
    BatchSettings,
    EvaluationSettings,
    OptimizerSettings,
    OutputSettings,
    PrecisionSettings,
    ScheduleSettings,
    TrainingSettings,
)
from afdcd.evaluation.build import inference_settings
from afdcd.models import HEADS
from afdcd.utils.problems import Problem, SettingsError, constructed, refuse

# Below MODEL: counts of channels and classes, and dilations; and numbers with what they are below.
POSITIVE = (
    "RESNETS.STEM_OUT_CHANNELS",
    "RESNETS.RES2_OUT_CHANNELS",
    "SEM_SEG_HEAD.NUM_CLASSES",
    "SEM_SEG_HEAD.CONVS_DIM",
    "SEM_SEG_HEAD.ASPP_DILATIONS",
)
AT_LEAST_ZERO = {
    "SEM_SEG_HEAD.LOSS_WEIGHT": math.inf,
    "SEM_SEG_HEAD.AUX_WEIGHT": math.inf,
    "SEM_SEG_HEAD.DROPOUT": 1.0,
    "SEM_SEG_HEAD.ASPP_DROPOUT": 1.0,
    "MOBILENETV2.WIDTH_MULT": math.inf,
    "MOBILENETV3.WIDTH_MULT": math.inf,
    "EFFICIENTNET_LITE.WIDTH_MULT": math.inf,
}


class SettingsReader:
    """Reads and checks a config's settings, each part into a dataclass of its own.

    Every method raises SettingsError with all that can't work in what it reads.

    Args:
        cfg: a config of either runtime.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def training(self, *, processes: int = 1, synchronised: bool = False) -> TrainingSettings:
        """Everything that a trainer of either runtime needs to know of a config.

        Args:
            processes: that share a batch.
            synchronised: whether BatchNorm takes the images of all processes together.

        Raises:
            SettingsError: every setting that can't work, whatever data and models are.
        """
        problems: list[str] = []
        schedule = constructed(self.schedule, problems)
        optimizer = constructed(self.optimizer, problems)
        precision = constructed(self.precision, problems)
        batch = constructed(lambda: self.batch(processes, synchronised), problems)
        loading = constructed(lambda: loading_settings(self.cfg), problems)
        inference = constructed(lambda: inference_settings(self.cfg), problems)
        output = constructed(self.output, problems)
        problems += self._model_problems()
        problems += self._schedule_problems()
        clip = self.cfg.MODEL.DISTILLER.CLIP_GRADIENTS
        refuse(problems)
        assert schedule and optimizer and precision and batch and loading and inference and output
        return TrainingSettings(
            schedule=schedule,
            optimizer=optimizer,
            precision=precision,
            batch=batch,
            loading=loading,
            inference=inference,
            output=output,
            clip_distiller=clip,
            seed=self.cfg.SEED,
            device=self.cfg.MODEL.DEVICE,
        )

    def _schedule_problems(self) -> list[str]:
        """Losses that the run uses in no step, as their ``SCHEDULE`` says."""
        if self.cfg.MODEL.META_ARCHITECTURE != "Distiller":
            return []
        # What else is wrong with the losses is said where they are made.
        settings = constructed(lambda: distiller_settings(self.cfg), [])
        steps = self.cfg.SOLVER.MAX_ITER
        return [
            f"MODEL.DISTILLER.LOSSES.{loss.label}.SCHEDULE leaves it none of the run's {steps} "
            "steps: begin it earlier, or end it later"
            for loss in (settings.losses if settings else ())
            if not loss.schedule.factor(loss.schedule.first(steps), steps)
        ]

    def training_problems(self, *, processes: int = 1, synchronised: bool = False) -> list[str]:
        """What `training` raises, as a list; empty where it raises nothing."""
        try:
            self.training(processes=processes, synchronised=synchronised)
        except SettingsError as error:
            return error.problems
        return []

    def batch_problems(self, *, processes: int, synchronised: bool = False) -> list[str]:
        """What `batch` raises, as a list."""
        problems: list[str] = []
        constructed(lambda: self.batch(processes, synchronised), problems)
        return problems

    def evaluation(self) -> EvaluationSettings:
        """How a model is scored, the student or a teacher with a config of its own.

        Raises:
            SettingsError: settings that can't work.
        """
        return EvaluationSettings(
            loading=loading_settings(self.cfg),
            inference=inference_settings(self.cfg),
            precision=self.precision(),
            pictures=Path(self.cfg.OUTPUT_DIR) if self.cfg.TEST.CONFUSION else None,
        )

    def schedule(self) -> ScheduleSettings:
        """From ``SOLVER``. Raises SettingsError."""
        solver = self.cfg.SOLVER
        return ScheduleSettings(
            base_lr=solver.BASE_LR,
            max_iter=solver.MAX_ITER,
            power=solver.POLY_LR_POWER,
            constant_ending=solver.POLY_LR_CONSTANT_ENDING,
            warmup_iters=solver.WARMUP_ITERS,
            warmup_factor=solver.WARMUP_FACTOR,
            warmup_method=solver.WARMUP_METHOD,
        )

    def optimizer(self) -> OptimizerSettings:
        """From ``SOLVER`` and ``MODEL.DISTILLER``. Raises SettingsError."""
        solver, distils = self.cfg.SOLVER, self.cfg.MODEL.META_ARCHITECTURE == "Distiller"
        return OptimizerSettings(
            base_lr=solver.BASE_LR,
            name=solver.OPTIMIZER,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            backbone_lr_factor=solver.BACKBONE_MULTIPLIER,
            distiller_lr_factor=self.cfg.MODEL.DISTILLER.LR_FACTOR if distils else 1.0,
        )

    def precision(self) -> PrecisionSettings:
        """From ``SOLVER.AMP``. Raises SettingsError."""
        return PrecisionSettings(
            enabled=self.cfg.SOLVER.AMP.ENABLED, dtype=self.cfg.SOLVER.AMP.DTYPE
        )

    def output(self) -> OutputSettings:
        """From ``OUTPUT_DIR``, periods, and what is kept. Raises SettingsError."""
        return OutputSettings(
            folder=Path(self.cfg.OUTPUT_DIR),
            checkpoint_period=self.cfg.SOLVER.CHECKPOINT_PERIOD,
            eval_period=self.cfg.TEST.EVAL_PERIOD,
            kept=self.cfg.SOLVER.CHECKPOINTS_KEPT,
            confusion=self.cfg.TEST.CONFUSION,
        )

    def batch(self, processes: int = 1, synchronised: bool = False) -> BatchSettings:
        """From ``SOLVER``, and the head. Raises SettingsError."""
        head = self.cfg.MODEL.SEM_SEG_HEAD
        # These heads average whole images and normalize the averages.
        known = head.NAME in HEADS
        mix = batch_mix(self.cfg, [])  # its problems are those of the loading
        pooled = known and HEADS.get(head.NAME).POOLS_IMAGES and head.NORM == "BN"
        return BatchSettings(
            images=self.cfg.SOLVER.IMS_PER_BATCH,
            parts=self.cfg.SOLVER.ACCUMULATE,
            processes=processes,
            pooled_head=head.NAME if pooled else "",
            synchronised=synchronised,
            unlabeled=mix.unlabeled if mix else 0,
        )

    def _model_problems(self) -> list[str]:
        problems: list[str] = []
        model = self.cfg.MODEL
        for key in POSITIVE:
            value = flat_value(model, key)
            if min(value if isinstance(value, (list, tuple)) else [value], default=0) < 1:
                problems.append(f"MODEL.{key} must be above 0; got {value}")
        for key, below in AT_LEAST_ZERO.items():
            value = flat_value(model, key)
            if not 0 <= value < below:
                limit = "finite" if below == math.inf else f"below {below:g}"
                problems.append(f"MODEL.{key} must be at least 0 and {limit}; got {value}")
        mean, std = list(model.PIXEL_MEAN), list(model.PIXEL_STD)
        finite = all(math.isfinite(value) for value in [*mean, *std])
        if len(mean) != 3 or len(std) != 3 or not finite or min(std) <= 0:
            problems.append(
                Problem(
                    f"MODEL.PIXEL_MEAN {mean} and PIXEL_STD {std} must be three finite numbers, "
                    "PIXEL_STD above 0",
                    "normalization",
                )
            )
        try:
            torch.device(model.DEVICE)
        except RuntimeError:
            problems.append(
                f"MODEL.DEVICE must be cpu or cuda (or cuda:0, ...); got {model.DEVICE!r}"
            )
        return problems
