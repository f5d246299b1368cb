"""Which samples of a run a teacher is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from afdcd.data.stream import BatchMix
from afdcd.distill.schedule import LossSchedule


@dataclass(frozen=True)
class StepsInUse:
    """Tells the samples of steps in which some loss asks for the teacher.

    Attributes:
        schedules: of the losses.
        steps: of the run.
        batch: images of a step.
        echo: steps that use a batch, one after the other.
        unlabeled: the mix of batches of which the images without labels alone are compared; None
            where all images are.
    """

    schedules: tuple[LossSchedule, ...]
    steps: int
    batch: int
    echo: int
    unlabeled: BatchMix | None = None

    @property
    def samples(self) -> int:
        """How many samples of the run they are."""
        each = self.unlabeled.unlabeled if self.unlabeled else self.batch
        return each * sum(self._uses(number) for number in range(-(-self.steps // self.echo)))

    def __call__(self, number: int) -> bool:
        if self.unlabeled is not None and not self.unlabeled.place(number)[0]:
            return False
        return self._uses(number // self.batch)

    def _uses(self, batch: int) -> bool:
        first = batch * self.echo
        return any(
            schedule.factor(step, self.steps) > 0
            for step in range(first, min(first + self.echo, self.steps))
            for schedule in self.schedules
        )
