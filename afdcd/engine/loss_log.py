"""The losses of the latest steps, read from their device only now and then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from afdcd.engine.failures import NonFiniteLoss

TOTAL = "total_loss"


class Losses(NamedTuple):
    """Of one step, ``total_loss`` and other figures among them; iterations count from 0."""

    iteration: int
    values: dict[str, float]


class LossLog:
    """Keeps losses where they are: to read one makes a GPU wait for all that came before.

    On a CPU, where reading costs nothing, a loss that isn't finite is noticed at once; on a GPU
    when the log is read, which must be done before anything is saved.

    Args:
        last: gives the newest checkpoint, for the error.
    """

    def __init__(self, last: Callable[[], Path | None]) -> None:
        self._last = last
        self._pending: list[tuple[int, list[str], torch.Tensor]] = []

    def note(
        self,
        iteration: int,
        losses: Mapping[str, torch.Tensor],
        figures: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Keep a step's losses and their sum, and scalars that are no part of it.

        Raises:
            NonFiniteLoss: on a CPU, where one isn't finite.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        others = {name: value.detach().float() for name, value in (figures or {}).items()}
        values = torch.cat([values, values.sum()[None], *(v.reshape(1) for v in others.values())])
        self._pending.append((iteration, [*losses, TOTAL, *others], values))
        if values.device.type == "cpu" and not torch.isfinite(values).all():
            self.read()

    def read(self) -> list[Losses]:
        """What was noted since the last call.

        Raises:
            NonFiniteLoss: with the first iteration and the terms where one isn't finite.
        """
        if not self._pending:
            return []
        # One copy, and one wait, for all of them.
        rows = torch.cat([values for _, _, values in self._pending]).tolist()
        read = []
        for iteration, names, _ in self._pending:
            values, rows = rows[: len(names)], rows[len(names) :]
            read.append(Losses(iteration, dict(zip(names, values, strict=True))))
        self._pending.clear()
        for iteration, losses in read:
            if not all(math.isfinite(value) for value in losses.values()):
                raise NonFiniteLoss.at(iteration, losses, self._last())
        return read


def mean_losses(steps: Sequence[Losses]) -> dict[str, float]:
    """Of each loss over the steps that have it."""
    found: dict[str, list[float]] = {}
    for step in steps:
        for name, value in step.values.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
