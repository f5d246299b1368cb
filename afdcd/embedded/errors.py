"""What stops a run before, or during, training."""

from __future__ import annotations

from collections.abc import Sequence


class SetupError(Exception):
    """The run can't start. Holds every problem found, not just the first.

    Attributes:
        problems: one sentence or more each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            lines = "\n".join(f"  {n}. {text}" for n, text in enumerate(self.problems, 1))
            super().__init__(f"{len(self.problems)} things stand in the way:\n{lines}")


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or NaN."""


class Interrupted(Exception):
    """The run was asked to stop and saved its state."""
