"""Everything that the next iteration of a run depends on, the same in both runtimes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from afdcd.distill import Distiller
from afdcd.engine.checkpoints import student_of

# Entries of an optimizer's groups that a run changes, or that hold its parameters.
_OF_THE_RUN = ("params", "param_names", "lr", "initial_lr")


@dataclass
class TrainingState:
    """What a checkpoint holds, and how far a run is.

    No random state is among it: each step's random numbers are a function of seed and iteration.

    Attributes:
        model: the plain model, or a distiller.
        optimizer: over its parameters, with their names (``param_names``).
        scaler: of the losses, for float16.
        max_iter: iterations in all.
        seed: of the run.
        iteration: the next one to do.
        seconds: of training so far, evaluations and checkpoints aside.
        recording_seconds: of recording the teacher's targets, which isn't part of the training's.
        times_student: forward and backward passes of a step in times those of the student alone;
            None where that wasn't measured.
        best: ``metric``, ``value`` and ``iteration`` of the best evaluation so far; empty before
            the first one.
        evaluated: iterations that were done at the last evaluation.
        teacher_figures: the teacher's scores.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    max_iter: int
    seed: int
    iteration: int = 0
    seconds: float = 0.0
    recording_seconds: float = 0.0
    times_student: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    evaluated: int = 0
    teacher_figures: dict[str, float] = field(default_factory=dict)

    def note_score(self, metric: str, value: float) -> None:
        """Take note of the best evaluation so far, that of the iterations done."""
        self.best = {"metric": metric, "value": value, "iteration": self.iteration - 1}

    def content(self) -> dict[str, Any]:
        """A checkpoint's content. ``iteration`` is the last one done, ``model`` the student."""
        content: dict[str, Any] = {
            "model": student_of(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.iteration - 1,
            "max_iter": self.max_iter,
            "seed": self.seed,
            "progress": {
                "seconds": self.seconds,
                "recording_seconds": self.recording_seconds,
                "times_student": self.times_student,
                "best": dict(self.best),
                "evaluated": self.evaluated,
                "teacher": dict(self.teacher_figures),
            },
        }
        if isinstance(self.model, Distiller):
            content["distiller"] = self.model.distiller.state_dict()
        return content

    def load(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content.

        Raises:
            RuntimeError, KeyError, ValueError: it is of another model or optimizer.
        """
        names = [group.get("param_names") for group in self.optimizer.param_groups]
        saved = [group.get("param_names") for group in content["optimizer"]["param_groups"]]
        if names != saved:
            raise ValueError(
                "the optimizer has other groups of parameters (is SOLVER.BIAS_LR_FACTOR, "
                "WEIGHT_DECAY_NORM, WEIGHT_DECAY_BIAS, BACKBONE_MULTIPLIER, "
                "MODEL.BACKBONE.FREEZE_AT or MODEL.DISTILLER.LR_FACTOR another?)"
            )
        groups = (self.optimizer.param_groups[0], content["optimizer"]["param_groups"][0])
        if len({"betas" in group for group in groups}) > 1:
            raise ValueError("it is of another optimizer (is SOLVER.OPTIMIZER another?)")
        student_of(self.model).load_state_dict(content["model"])
        if isinstance(self.model, Distiller):
            self.model.distiller.load_state_dict(content["distiller"])
        # Momentum, weight decay and the like are the config's, not the checkpoint's.
        settings = [
            {name: value for name, value in group.items() if name not in _OF_THE_RUN}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(content["optimizer"])
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        if content["scaler"]:  # empty where the run was in full precision so far
            self.scaler.load_state_dict(content["scaler"])
        self.iteration = content["iteration"] + 1
        self.seed = content["seed"]
        progress = content["progress"]
        self.seconds, self.best = progress["seconds"], dict(progress["best"])
        # Older checkpoints hold neither of the two.
        self.recording_seconds = progress.get("recording_seconds", 0.0)
        self.times_student = progress.get("times_student")
        # Checkpoints that don't say so were written after the evaluation.
        self.evaluated = progress.get("evaluated", self.iteration)
        self.teacher_figures = dict(progress["teacher"])
