"""What losses compare the student with: the teacher's maps, or components of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from afdcd.utils.sample_keys import ECHO

# Last part of the module paths of layers whose channels are classes.
LOGITS = "predictor"


def is_logits(path: str) -> bool:
    """Whether a tap's channels are classes, by its module path."""
    return path.rpartition(".")[2] == LOGITS


class Target(NamedTuple):
    """What losses compare the student with.

    Attributes:
        path: of a tap of the teacher.
        dims: principal components of its map; 0 for the map itself.
        classes: channels of the map that are compared, in this order; all when empty.
    """

    path: str
    dims: int = 0
    classes: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Such as ``backbone.res5``, or ``backbone.res5[256]`` for 256 components."""
        return f"{self.path}[{self.dims}]" if self.dims else self.path

    @property
    def module_name(self) -> str:
        """`name` as a module may be called."""
        return f"{self.path}_{self.dims}".replace(".", "_")


class KeptTargets:
    """The targets of a batch that comes several times in a row (``DATALOADER.ECHO``).

    Samples say so under ``echo``: the batch's number, and how often it will come again.
    """

    def __init__(self) -> None:
        self._batch = -1
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def get(
        self, batched_inputs: list[dict[str, Any]], part: int, names: list[str]
    ) -> dict[str, torch.Tensor] | None:
        """The targets of a part of a batch, if they are kept, all of them."""
        batch, _ = _echo(batched_inputs)
        kept = self._kept.get(part, {}) if batch == self._batch else {}
        return {name: kept[name] for name in names} if kept.keys() >= set(names) else None

    def put(
        self, batched_inputs: list[dict[str, Any]], part: int, targets: dict[str, torch.Tensor]
    ) -> None:
        """Keep targets, if their batch will come again; forget those of the batch before it."""
        batch, again = _echo(batched_inputs)
        if batch != self._batch:
            self._batch, self._kept = batch, {}
        if again:
            self._kept.setdefault(part, {}).update(targets)

    def forget(self) -> None:
        """Keep nothing."""
        self._batch, self._kept = -1, {}


def _echo(batched_inputs: list[dict[str, Any]]) -> tuple[int, int]:
    return batched_inputs[0].get(ECHO, (-1, 0)) if batched_inputs else (-1, 0)
