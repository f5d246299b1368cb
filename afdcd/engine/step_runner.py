"""A training step with all that belongs to it, the same in both runtimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from afdcd.distill import Distiller
from afdcd.engine.loss_log import Losses, LossLog
from afdcd.engine.precision import autocast, gradient_scaler
from afdcd.engine.settings import TrainingSettings
from afdcd.engine.step import accumulate
from afdcd.engine.step_cost import StepCost
from afdcd.engine.throughput import Throughput
from afdcd.utils.seeds import DROPOUT, stream_seed

# Iterations between two lines of the log.
LOG_PERIOD = 20


class StepRunner:
    """Loads a batch, computes gradients, updates the weights, and takes note of losses and times.

    Args:
        settings: of the run.
        model: on its device, perhaps in DistributedDataParallel.
        optimizer: over its parameters.
        seed: of the run; dropout is a function of it, the rank and the iteration.
        device: of the model.
        rank: of this process.
        last_checkpoint: gives the newest one, for errors.

    Attributes:
        scaler: of the losses, for float16.
        seconds: of training so far; may be set.
        cost: compares the steps with the student's own.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        last_checkpoint: Callable[[], Path | None],
    ) -> None:
        # Called in each step once the gradients are there.
        self.after_backward: Callable[[], None] = lambda: None
        self.settings, self.model, self.optimizer = settings, model, optimizer
        self.seed, self.rank, self.device = seed, rank, device
        self.scaler = gradient_scaler(settings.precision, device)
        self.seconds = 0.0
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        self._distiller = inner if isinstance(inner, Distiller) else None
        self._passes = partial(
            accumulate,
            parts=settings.batch.parts,
            precision=partial(autocast, settings.precision, device),
            scaler=self.scaler,
            device=device,
        )
        self.cost = StepCost(model, device, self._passes)
        self._losses = LossLog(last_checkpoint)
        self._window = Throughput()

    def run(self, batches: Iterator[list[dict[str, Any]]], iteration: int) -> float | None:
        """Do the step of an iteration, counted from 0, on the next batch.

        Returns:
            after one of the first steps, what a step costs in times the student's own: see
            `StepCost.after_step`, whose time isn't counted. None after all others.

        Raises:
            NonFiniteLoss: on a CPU, where a loss isn't finite.
        """
        start, recorded = time.perf_counter(), self.recording_seconds
        batch = next(batches)
        loaded = time.perf_counter()
        self.update(batch, iteration)
        end = time.perf_counter()
        self.seconds += end - start - (self.recording_seconds - recorded)
        self._window.add(steps=1, waited=loaded - start, seconds=end - start)
        return self.cost.after_step(batch, aside=self.recording_seconds - recorded)

    @property
    def recording_seconds(self) -> float:
        """Spent on recording the teacher in this process; no part of ``seconds``."""
        distiller = self._distiller
        return distiller.record.seconds if distiller and distiller.record else 0.0

    def update(self, batch: list[dict[str, Any]], iteration: int) -> None:
        """Do the step of an iteration on a batch."""
        # After loading, since a loader may draw its workers' seed from the same generator.
        torch.manual_seed(stream_seed(self.seed, DROPOUT, self.rank, iteration))
        self.optimizer.zero_grad()
        with self.cost.step():
            losses = self._passes(self.model, batch)
        figures = {}
        if self._distiller is not None:
            self._distiller.drop_idle_gradients()
            figures = self._distiller.figures
        self._losses.note(iteration, losses, figures)
        self.after_backward()
        # Here rather than within the update, so that clipping sees the true gradients.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def logs_after(self, done: int) -> bool:
        """Whether a line of the log is due once ``done`` iterations are done."""
        return done % LOG_PERIOD == 0 or done == self.settings.max_iter

    def flush(self) -> tuple[list[Losses], dict[str, float]]:
        """The losses since the last call, and what `Throughput` says of that time.

        Must be called before anything is saved: on a GPU, this is where a loss that isn't finite is
        noticed.

        Raises:
            NonFiniteLoss: a loss wasn't finite.
        """
        start = time.perf_counter()
        steps = self._losses.read()  # waits for a GPU: a part of the training's time
        waited = time.perf_counter() - start
        self._window.add(seconds=waited)
        self.seconds += waited
        if not steps:
            return [], {}
        figures = self._window.figures(self.settings.batch.images)
        self._window = Throughput()
        return steps, figures
