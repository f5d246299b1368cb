"""In which steps of a run a loss is used, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from afdcd.losses.settings import as_setting
from afdcd.utils.problems import SettingsError, nearest_hint


@dataclass(frozen=True)
class LossSchedule:
    """A part of a training run.

    A loss isn't computed in the other steps, and where no loss is, neither is the teacher run. Its
    own layers (align, projector) don't change in them.

    Attributes:
        start, end: shares of the run's steps that it begins with and ends before: 0 and 1 for all.
        every: it is used in each ``every``-th step from the first one on, with its full weight.
        fade: share of the run, before ``end``, over which its weight falls linearly to 0.

    Raises:
        SettingsError: values that can't work; lists all of them.
    """

    start: float = 0.0
    end: float = 1.0
    every: int = 1
    fade: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.start < self.end <= 1:
            problems.append(
                "SCHEDULE.START and END are shares of the run, 0 <= START < END <= 1; got "
                f"{self.start:g} and {self.end:g}"
            )
        if self.every < 1:
            problems.append(f"SCHEDULE.EVERY is a number of steps, 1 or more; got {self.every}")
        if not 0 <= self.fade <= max(self.end - self.start, 0):
            problems.append(
                "SCHEDULE.FADE is a share of the run, from 0 to END - START "
                f"({self.end - self.start:g}); got {self.fade:g}"
            )
        if problems:
            raise SettingsError(problems)

    @classmethod
    def read(cls, content: Any, key: str) -> LossSchedule:
        """Read a schedule as it stands in a config.

        Args:
            content: ``START``, ``END``, ``EVERY`` and ``FADE``, or some of them.
            key: of the schedule, for errors.

        Raises:
            SettingsError, ValueError: what is wrong with it.
        """
        defaults = vars(cls())
        if not isinstance(content, Mapping):
            raise ValueError(f"{key} takes keys such as {{START: 0.0, END: 0.5}}; got {content!r}")
        values = {}
        for name, value in content.items():
            if str(name).lower() not in defaults or str(name) != str(name).upper():
                hint = nearest_hint(str(name), [known.upper() for known in defaults])
                raise ValueError(f"there is no setting {key}.{name}; {hint}")
            values[name.lower()] = as_setting(value, defaults[name.lower()], f"{key}.{name}")
        try:
            return cls(**values)
        except SettingsError as error:
            label = key.removesuffix("SCHEDULE")
            raise SettingsError([f"{label}{problem}" for problem in error.problems]) from error

    @property
    def depends_on_length(self) -> bool:
        """Whether it takes the number of the run's steps to tell."""
        return (self.start, self.end, self.fade) != (0.0, 1.0, 0.0)

    def first(self, steps: int) -> int:
        """The step that it begins with: where it has no factor there, the loss is never used."""
        return math.ceil(self.start * steps) if self.depends_on_length else 0

    def factor(self, step: int, steps: int) -> float:
        """What the loss's weight is multiplied by in a step; 0 where the loss isn't used.

        Args:
            step: number of the step, counted from 0.
            steps: of the whole run; unused where `depends_on_length` is false.
        """
        first, end = self.first(steps), math.inf
        if self.depends_on_length:
            end = self.end * steps
        if not first <= step < end or (step - first) % self.every:
            return 0.0
        return min((end - step) / (self.fade * steps), 1.0) if self.fade else 1.0
