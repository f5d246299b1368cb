"""Weight gradients that the backward pass computes last.

A projector's weight gradients are as large as its weights. Autograd would compute them first, while
the student's activations are all alive; computed last, they take the room that those have left.

Of the nodes that are ready autograd runs the one that was recorded last. So a node recorded before
the student's forward pass runs after the whole of its backward pass. `LateGradient` records such a
node for a weight; a convolution is linked to it by a scalar, and leaves behind how its weight's
gradient is computed when its own turn comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

Compute = Callable[[], torch.Tensor]


class Slot:
    """Where a convolution's backward pass leaves how its weight's gradient is computed."""

    def __init__(self) -> None:
        self._compute: Compute | None = None

    def put(self, compute: Compute) -> None:
        self._compute = compute

    def take(self) -> Compute:
        compute, self._compute = self._compute, None
        assert compute is not None, "the convolution's node runs first and fills the slot"
        return compute


class LateGradient:
    """One use of a weight, its gradient computed as late as this was created early.

    For one forward pass: an operation that takes it is differentiable by ``token`` instead of
    ``weight``. Made just before its use, it only changes who computes the gradient.

    Attributes:
        weight: detached; in its own dtype.
        token: a scalar 0 that the weight's gradient comes through.
        slot: what the operation's backward pass fills where ``token`` needs a gradient.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.slot = Slot()
        self.weight = weight.detach()
        self.token: torch.Tensor = _Late.apply(weight, self.slot)


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, slot: Slot) -> torch.Tensor:
        ctx.slot = slot
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.slot.take()(), None
