"""Scores by class over several runs, worked by hand."""

from __future__ import annotations

from afdcd.study import at_zero, class_table, classes_of

FIGURES = {"mIoU": 30.0, "IoU-road": 60.0, "IoU-pole": 0.0, "IoU-bus": None, "ACC-road": 70.0}


def test_classes_are_those_with_an_iou():
    figures = {**FIGURES, "BoundaryIoU-road": 5.0}
    assert classes_of({"val": figures}, None) == {"road": 60.0, "pole": 0.0}


def test_names_behind_a_task_and_names_like_figures():
    figures = {"sem_seg.IoU-traffic.IoU-light": 3.0, "sem_seg.BoundaryIoU-road": 5.0}
    assert classes_of({"val": figures}, None) == {"traffic.IoU-light": 3.0}


def test_of_which_data_set():
    figures = {"a": FIGURES, "b": {"IoU-road": 1.0}, "c": {"error": 1.0}}
    assert classes_of(figures, "b") == {"road": 1.0}
    assert classes_of(figures, None) == {} == classes_of(figures, "c")
    assert classes_of({"b": figures["b"], "c": figures["c"]}, None) == {"road": 1.0}


def test_means_are_over_the_runs_that_have_the_class():
    ways = {
        "student": [{"road": 60.0, "pole": 1.0}, {"road": 62.0}],
        "afdcd": [{"road": 70.0, "bus": 5.0}],
    }
    lines = [line.split() for line in class_table(ways).splitlines()]
    assert lines[0] == ["mean", "IoU", "by", "class", "student", "afdcd"]
    assert lines[2:] == [["road", "61.00", "70.00"], ["pole", "1.00", "-"], ["bus", "-", "5.00"]]
    assert class_table({"student": [{}]}) == ""


def test_classes_at_zero():
    runs = [{"road": 60.0, "bus": 0.0, "pole": pole} for pole in (0.0, 0.49, 7.0, 0.5, 0.1)]
    ways = {"student": runs, "afdcd": [{"road": 50.0}], "cwd": [{"bus": 0.1, "pole": 0.2}]}
    chance, always, both = at_zero(ways)
    assert chance.startswith("pole is at 0 in 3 of 5 runs of student: ")
    assert chance.endswith("by chance")
    assert always == "bus is at 0 in every run of student"
    assert both == "bus, pole are at 0 in every run of cwd"
