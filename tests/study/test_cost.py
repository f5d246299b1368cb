"""What a gain costs, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afdcd.engine.results import FinishedRun
from afdcd.study import Way, basis, cost_lines
from afdcd.study.cost import mean_gain, prices, slopes


def way(
    name: str,
    figures: dict[int, float],
    *,
    iterations: int = 100,
    seconds: float = 10.0,
    recording: tuple[float, ...] = (),
    times: float | None = None,
    **settings: Any,
) -> Way:
    values = {"SOLVER.MAX_ITER": iterations, "MODEL.META_ARCHITECTURE": "S", **settings}
    runs = []
    for number, seed in enumerate(figures):
        record = recording[number] if recording else 0.0
        own = {**values, "SEED": seed, "OUTPUT_DIR": f"{name}_{seed}"}
        runs.append(FinishedRun(Path(name), seed, {}, seconds, own, record, times))
    return Way(name, runs, figures)


def distilled(name: str, figures: dict[int, float], **values: Any) -> Way:
    return way(name, figures, **{"MODEL.META_ARCHITECTURE": "Distiller"}, **values)


SHORT = way("short", {1: 40.0, 2: 42.0})
# Four times as long, with a schedule that goes with it: 4 and 6 points more, 5 in two doublings.
LONG = way("long", {1: 44.0, 2: 48.0}, iterations=400, seconds=40.0, **{"TEST.EVAL_PERIOD": 400})


@pytest.mark.parametrize(
    ("iterations", "seconds", "text"),
    [
        (100, 10.5, "at equal iterations and equal time"),
        (100, 10.6, "at equal iterations"),
        (100, 9.5, "at equal iterations"),  # 9.5 * 1.05 = 9.975
        (99, 9.53, "at equal time"),
        (99, 20.0, "at neither equal iterations nor equal time"),
    ],
)
def test_basis(iterations: int, seconds: float, text: str):
    other = way("other", {1: 1.0}, iterations=iterations, seconds=seconds)
    assert basis(SHORT, other) == basis(other, SHORT) == text


def test_time_is_that_of_training_and_recording():
    assert basis(SHORT, distilled("d", {1: 1.0}, seconds=6.0, recording=(4.0,))) == (
        "at equal iterations and equal time"
    )
    assert "equal time" not in basis(SHORT, distilled("d", {1: 1.0}, recording=(4.0,)))


def test_gains_are_paired_where_seeds_are_shared():
    assert mean_gain({1: 40.0, 2: 42.0}, {2: 43.0, 3: 99.0}) == 1.0
    assert mean_gain({1: 40.0, 2: 42.0}, {3: 45.0}) == 4.0


def test_a_slope_is_points_per_doubling():
    (slope,) = slopes([LONG, SHORT])
    assert (slope.short.name, slope.long.name) == ("short", "long")
    assert slope.points == pytest.approx(2.5)
    assert slope.break_even(5.0) == pytest.approx(4.0)
    assert slope.break_even(0.0) == 1.0
    assert slope.break_even(-2.5) == pytest.approx(0.5)
    assert slope.break_even(1e9) == 2.0**64


def test_schedules_that_differ_in_something_else_have_no_slope():
    other = way("other", {1: 50.0}, iterations=200, **{"SOLVER.BASE_LR": 0.1})
    assert slopes([SHORT, other]) == [] and slopes([SHORT, SHORT]) == []
    taught = distilled("d", {1: 50.0}, iterations=200)
    assert slopes([SHORT, taught]) == [] and cost_lines([SHORT, taught], "mIoU") == []


def test_to_a_student_alone_settings_of_distilling_mean_nothing():
    other = way("other", {1: 50.0}, iterations=200, **{"MODEL.DISTILLER.TEACHER.WEIGHTS": "t.pth"})
    assert [slope.long.name for slope in slopes([SHORT, other])] == ["other"]


def test_each_schedule_is_paired_with_the_next():
    longest = way("longest", {1: 50.0, 2: 51.0}, iterations=800)
    found = slopes([longest, SHORT, LONG])
    names = [(slope.short.name, slope.long.name) for slope in found]
    assert names == [("short", "long"), ("long", "longest")]


@pytest.mark.parametrize("lost", [0.0, 1.0])
def test_a_longer_schedule_that_gains_nothing(lost: float):
    """No time alone is worth a gain there, however long: 2^(gain / points) would be below 1."""
    same = way("same", {1: 40.0 - lost, 2: 42.0 - lost}, iterations=200)
    (slope,) = slopes([SHORT, same])
    assert slope.break_even(1.0) is None
    lines = cost_lines([SHORT, same, distilled("d", {1: 41.0})], "mIoU")
    assert "no break-even, since a longer schedule gains nothing" in lines[1]


def test_a_price():
    """5 points are two doublings: worth 4 times the student's time, of 10 seconds."""
    taught = distilled("d", {1: 45.0, 2: 47.0}, seconds=30.0, recording=(20.0, 0.0), times=2.75)
    (price,) = prices([SHORT, taught, LONG])
    assert price.gain == 5.0 and price.student is SHORT
    assert price.cost == 3.0
    assert price.cost_of_one_record == 4.0  # 20 seconds for two runs
    assert price.cost_of_own_records == 5.0
    slope, line = cost_lines([SHORT, taught, LONG], "mIoU")
    assert slope == (
        "The student alone: +2.50 points of mIoU per doubling of its schedule (short: 100 "
        "iterations, long: 400)"
    )
    assert line == (
        "d gains +5.00 over short at equal iterations: worth 4.00 times the student's time, since "
        "2^(5.00/2.50) = 4.00\n  a step cost 3.00 times the student's; with 20 s of recording, "
        "4.00 if 2 runs share the record, 5.00 if each makes its own; its forward and backward "
        "passes alone 2.75 times (measured while it trained)"
    )


def test_a_price_at_the_long_schedule():
    taught = distilled("d", {1: 49.0, 2: 53.0}, iterations=400, seconds=60.0)
    (price,) = prices([SHORT, LONG, taught])
    assert (price.student, price.gain, price.cost) == (LONG, 5.0, 1.5)
    assert "recording" not in cost_lines([SHORT, LONG, taught], "mIoU")[1]


def test_a_way_without_a_student_of_its_iterations():
    taught = distilled("d", {1: 45.0}, iterations=150)
    assert prices([SHORT, LONG, taught]) == []
    assert "d has no break-even" in cost_lines([SHORT, LONG, taught], "mIoU")[1]
    assert "one of them with 150 iterations" in cost_lines([SHORT, LONG, taught], "mIoU")[1]
