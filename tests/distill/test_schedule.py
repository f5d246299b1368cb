"""In which steps a loss is used."""

from __future__ import annotations

import pytest

from afdcd.distill.schedule import LossSchedule
from afdcd.distill.settings import LossSettings
from afdcd.utils.problems import SettingsError


def factors(steps: int, **settings: float) -> list[float]:
    return [LossSchedule(**settings).factor(step, steps) for step in range(steps)]


def test_by_hand():
    assert factors(4) == [1, 1, 1, 1]
    assert factors(10, start=0.2, end=0.5) == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert factors(10, start=0.2, end=0.8, every=3) == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert factors(6, every=2) == [1, 0, 1, 0, 1, 0]
    # Ends before step 8; over the four steps before it the weight falls by a quarter each.
    assert factors(10, end=0.8, fade=0.4) == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])
    # Shares that don't divide: from the first step that lies in the part.
    assert factors(7, start=0.5) == [0, 0, 0, 0, 1, 1, 1]


def test_all_that_is_wrong_is_named():
    with pytest.raises(SettingsError) as error:
        LossSchedule(start=0.5, end=0.5, every=0, fade=2.0)
    assert len(error.value.problems) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"STRAT": 0.1}, "did you mean START"),
        ({"START": "early"}, "SCHEDULE.START takes"),
        ({"EVERY": 2.5}, "SCHEDULE.EVERY takes a whole number"),
        ({"START": 0.9, "END": 0.1}, "^MODEL.DISTILLER.LOSSES.logit_kd.SCHEDULE.START and END are"),
        ({"EVERY": 0}, "^MODEL.DISTILLER.LOSSES.logit_kd.SCHEDULE.EVERY is"),
        (3, "takes keys such as"),
    ],
)
def test_errors_of_a_config(content: object, words: str):
    with pytest.raises(SettingsError, match=words):
        LossSettings.read("logit_kd", {"SCHEDULE": content})


def test_read():
    loss = LossSettings.read("afdcd", {"DIMS": 8, "SCHEDULE": {"END": "5e-1", "EVERY": 2}})
    assert loss.schedule == LossSchedule(end=0.5, every=2)
    assert loss.dims == 8


def test_a_name_that_is_no_text():
    for name in (3, ["afdcd"]):
        with pytest.raises(SettingsError, match=r"logits\.NAME: nothing in LOSSES is called"):
            LossSettings.read("logits", {"NAME": name})


def test_components_are_not_of_classes():
    with pytest.raises(SettingsError, match="class by class"):
        LossSettings.read("logit_kd", {"DIMS": 4})
    with pytest.raises(SettingsError, match="DIMS is a number"):
        LossSettings.read("afdcd", {"DIMS": -1})
