"""What stops a run during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path


class ProcessLost(RuntimeError):
    """A process of a run ended without a word: killed, or crashed in a library."""


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or NaN."""

    @classmethod
    def at(cls, iteration: int, losses: Mapping[str, float], last: Path | None) -> NonFiniteLoss:
        """With the iteration, every term, and what to do.

        Args:
            iteration: counted from 0.
            losses: by name; ``total_loss`` may be among them.
            last: the newest checkpoint, if there is one.
        """
        terms = ", ".join(f"{name} = {value:g}" for name, value in losses.items())
        bad = [n for n, v in losses.items() if not math.isfinite(v) and n != "total_loss"]
        return cls(
            f"{', '.join(bad) or 'total_loss'} is not finite at iteration {iteration} "
            f"({terms}). Lower SOLVER.BASE_LR or that term's weight, or add "
            "SOLVER.WARMUP_ITERS"
            + (f"; {last} is from before" if last else "; no checkpoint was saved yet")
        )
