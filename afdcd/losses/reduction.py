"""How the two terms of Af-DCD are averaged: one vocabulary for both."""

from __future__ import annotations

REDUCTIONS = ("published", "mean")


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is one of `REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
