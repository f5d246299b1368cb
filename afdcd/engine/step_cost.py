"""What a distillation step costs in times the student's own step, measured once in a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from afdcd.distill import Distiller

# Steps after the start of a process before anything is timed: what is compiled, chosen or
# allocated in the first steps is no part of a step's cost.
SETTLING = 16
# Steps after that whose cost is compared with the student's own; one more before them isn't
# counted.
COMPARED = 3

Batch = list[dict[str, Any]]


class StepCost:
    """Compares forward and backward passes of a distiller with those of its student alone.

    After each of a few steps the student alone passes over the batch of that step, forward and
    backward, under the same precision and in the same parts. Whatever it changes is put back, so
    the training goes on as if nothing had been measured. With several processes each calls the
    same methods after the same steps; the student's gradients aren't averaged among them, those of
    the step are.

    Args:
        model: that is trained, perhaps in DistributedDataParallel; of one that isn't a distiller
            nothing is measured.
        device: of the model.
        passes: does the forward and backward passes of a step with a model on a batch.

    Attributes:
        enabled: whether anything is measured.
        aside: makes the context in which the student passes alone, for runtimes whose models write
            to a log.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        passes: Callable[[nn.Module, Batch], object],
    ) -> None:
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        self._student = inner.student if isinstance(inner, Distiller) else None
        self.enabled = self._student is not None
        self.aside: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._device, self._passes = device, passes
        self._steps = 0
        self._seconds = 0.0
        self._ratios: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Surrounds the forward and backward passes of each step."""
        self._steps += 1
        if not self._due:
            yield
            return
        with self._timed():
            yield

    def after_step(self, batch: Batch, *, aside: float = 0.0) -> float | None:
        """Must be called after each step, with the batch that it was done on.

        The gradients are None afterwards where something was measured.

        Args:
            batch: of the step.
            aside: seconds of its passes that aren't counted: of recording the teacher.

        Returns:
            after the last step that is compared, seconds of a step's passes over those of the
            student's own, the median of `COMPARED` steps; None after all others.
        """
        if self._student is None or not self._due:
            return None
        whole = self._seconds - aside
        with unchanged(self._student, self._device), self.aside(), self._timed():
            self._passes(self._student, batch)
        self._ratios.append(whole / max(self._seconds, 1e-9))
        return median(self._ratios[1:]) if len(self._ratios) > COMPARED else None

    @property
    def _due(self) -> bool:
        last = SETTLING + 1 + COMPARED
        return self.enabled and SETTLING < self._steps <= last

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Sets the seconds that are spent inside, on a GPU too."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self._seconds = time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def describe_cost(times: float) -> str:
    """What `StepCost.after_step` returned, as a line of the log."""
    return (
        f"A step's forward and backward passes take {times:.2f} times as long as the student's own"
    )


@contextmanager
def unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what passes over a model change: its buffers, and PyTorch's random state.

    Gradients are None inside, at the beginning, and afterwards.
    """
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    model.zero_grad(set_to_none=True)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
