"""Detectron2's loop around the steps that both runtimes share."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

from afdcd.engine.step_cost import describe_cost
from afdcd.engine.step_runner import StepRunner

logger = logging.getLogger(__name__)


class StepTrainer(SimpleTrainer):
    """Detectron2's loop around a `StepRunner`.

    Args:
        steps: does the steps.
        loader: of batches; may be set later.

    Attributes:
        times_student: what a step costs in times the student's own, once that is measured; may be
            set.
    """

    def __init__(self, steps: StepRunner, loader: Any) -> None:
        super().__init__(steps.model, loader, steps.optimizer)
        self.steps = steps
        # Models of Detectron2 write figures and pictures of their losses to the current storage.
        steps.cost.aside = partial(EventStorage, 1)
        self.times_student: float | None = None

    def run_step(self) -> None:
        """Load, forward, backward, update; every so often, log."""
        times = self.steps.run(self._data_loader_iter, self.iter)
        if times is not None:
            self._note_cost(times)
        if self.steps.logs_after(self.iter + 1):
            self.flush()

    def _note_cost(self, times: float) -> None:
        """Log what a step costs in times the student's own, as the main process measured it."""
        self.times_student = times
        if comm.is_main_process():
            logger.info("%s", describe_cost(times))
            get_event_storage().put_scalar("times_student", times, smoothing_hint=False)

    def flush(self) -> None:
        """Hand the losses since the last call to the writers, averaged over the processes.

        All processes must call it, and before anything is saved: see `StepRunner.flush`.

        Raises:
            NonFiniteLoss: a loss of this process wasn't finite.
        """
        steps, figures = self.steps.flush()
        if not steps:
            return
        gathered = comm.gather((steps, figures))
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        for number, step in enumerate(steps):
            for name in step.values:
                mean = sum(each[number].values[name] for each, _ in gathered) / len(gathered)
                storage.put_scalar(name, mean, cur_iter=step.iteration)
        # Processes wait for the slowest.
        for name in figures:
            worst = min if name == "images_per_second" else max
            value = worst(each[name] for _, each in gathered)
            storage.put_scalar(name, value, cur_iter=steps[-1].iteration, smoothing_hint=False)
