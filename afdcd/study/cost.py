"""What distilling gains, beside what it costs: the price of a gain in training alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from afdcd.study.runs import ITERATIONS, Way, changes

# What a longer schedule changes beside its length.
SCHEDULE_KEYS = frozenset(
    {
        ITERATIONS,
        "SOLVER.WARMUP_ITERS",
        "SOLVER.STEPS",
        "SOLVER.CHECKPOINT_PERIOD",
        "SOLVER.CHECKPOINTS_KEPT",
        "TEST.EVAL_PERIOD",
    }
)
# Times that differ by no more than this factor are equal.
EQUAL_TIME = 1.05


def basis(first: Way, second: Way) -> str:
    """What two ways have in common: ``equal iterations``, ``equal time``, both, or neither."""
    longer, shorter = max(first.seconds, second.seconds), min(first.seconds, second.seconds)
    same = []
    if first.iterations == second.iterations:
        same.append("equal iterations")
    if longer <= EQUAL_TIME * shorter:
        same.append("equal time")
    return "at " + (" and ".join(same) or "neither equal iterations nor equal time")


def mean_gain(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Mean of second minus first over the seeds of both; of all where they share none."""
    seeds = first.keys() & second.keys()
    if seeds:
        return statistics.mean(second[seed] - first[seed] for seed in seeds)
    return statistics.mean(second.values()) - statistics.mean(first.values())


@dataclass(frozen=True)
class Slope:
    """What a longer schedule gains the student alone.

    Attributes:
        short, long: the same way but for its schedule, which is longer in the second.
    """

    short: Way
    long: Way

    @property
    def points(self) -> float:
        """Points per doubling of the schedule."""
        doublings = math.log2(self.long.iterations / self.short.iterations)
        return mean_gain(self.short.figures, self.long.figures) / doublings

    def break_even(self, gain: float) -> float | None:
        """How many times as long the student alone must train to gain as much.

        A distilled step that costs this many times the student's own is worth its price and no
        more. Below 1 where the gain is a loss.

        Args:
            gain: in points.

        Returns:
            2^(gain / points), of 64 doublings at most; None where a longer schedule gains nothing,
            or loses.
        """
        if self.points <= 0:
            return None
        return float(2 ** min(gain / self.points, 64.0))


def slopes(ways: Iterable[Way]) -> list[Slope]:
    """The slopes between schedules of ways without a teacher that differ in nothing else.

    Each schedule is paired with the next longer one.
    """
    alone = sorted((way for way in ways if not way.distilled), key=lambda way: way.iterations)
    found = []
    for index, short in enumerate(alone):
        longer = [
            way
            for way in alone[index + 1 :]
            if way.iterations > short.iterations > 0 and _differ_in_schedule_alone(short, way)
        ]
        if longer:
            found.append(Slope(short, longer[0]))
    return found


def _differ_in_schedule_alone(one: Way, two: Way) -> bool:
    """Of two ways without a teacher, to which the settings of distilling mean nothing."""
    changed = changes(one.runs[0], two.runs[0])
    return all(key in SCHEDULE_KEYS or key.startswith("MODEL.DISTILLER.") for key in changed)


@dataclass(frozen=True)
class Price:
    """A distilled way beside the student alone of as many iterations.

    Attributes:
        way: distilled.
        student: alone, with as many iterations.
        slope: that begins, or else ends, with ``student``.
    """

    way: Way
    student: Way
    slope: Slope

    @property
    def gain(self) -> float:
        """Points over the student."""
        return mean_gain(self.student.figures, self.way.figures)

    @property
    def cost(self) -> float:
        """A step's seconds in times the student's, without recording."""
        return self.way.training / max(self.student.training, 1e-9)

    @property
    def cost_of_one_record(self) -> float:
        """The same with the seconds of one record, which all runs of the way share."""
        shared = self.way.training + self.way.recording / len(self.way.runs)
        return shared / max(self.student.training, 1e-9)

    @property
    def cost_of_own_records(self) -> float:
        """The same with the seconds of a record for each run."""
        return self.way.seconds / max(self.student.training, 1e-9)


def prices(ways: Sequence[Way]) -> list[Price]:
    """Every distilled way that a slope begins or ends with as many iterations as it has."""
    found = slopes(ways)
    rows = []
    for way in ways:
        if not way.distilled:
            continue
        starts = [(slope.short, slope) for slope in found]
        ends = [(slope.long, slope) for slope in found]
        same = [pair for pair in (*starts, *ends) if pair[0].iterations == way.iterations]
        if same:
            student, slope = same[0]
            rows.append(Price(way, student, slope))
    return rows


def cost_lines(ways: Sequence[Way], metric: str) -> list[str]:
    """What the student alone gains by a longer schedule, and what distilling costs beside that.

    Nothing where there aren't two schedules of a student alone.

    Args:
        ways: all that are compared.
        metric: the name of their figures.
    """
    lines = [
        f"The student alone: {slope.points:+.2f} points of {metric} per doubling of its schedule "
        f"({slope.short.name}: {slope.short.iterations} iterations, {slope.long.name}: "
        f"{slope.long.iterations})"
        for slope in slopes(ways)
    ]
    if not lines:
        return []
    known = {price.way.name: price for price in prices(ways)}
    for way in ways:
        if way.name in known:
            lines.append(_price_line(known[way.name]))
        elif way.distilled:
            lines.append(
                f"{way.name} has no break-even: there is no student alone in two schedules, one of "
                f"them with {way.iterations} iterations"
            )
    return lines


def _price_line(price: Price) -> str:
    way, points = price.way, price.slope.points
    worth = price.slope.break_even(price.gain)
    text = f"{way.name} gains {price.gain:+.2f} over {price.student.name} at equal iterations: "
    if worth is None:
        text += "no break-even, since a longer schedule gains nothing"
    else:
        text += (
            f"worth {worth:.2f} times the student's time, since 2^({price.gain:.2f}/{points:.2f}) "
            f"= {worth:.2f}"
        )
    text += f"\n  a step cost {price.cost:.2f} times the student's"
    if way.recording:
        count = len(way.runs)
        text += (
            f"; with {way.recording:.0f} s of recording, {price.cost_of_one_record:.2f} if "
            f"{count} runs share the record, {price.cost_of_own_records:.2f} if each makes its own"
        )
    measured = [run.times_student for run in way.runs if run.times_student is not None]
    if measured:
        text += (
            f"; its forward and backward passes alone {statistics.median(measured):.2f} times "
            "(measured while it trained)"
        )
    return text
