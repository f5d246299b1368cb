"""The rate of a run, worked by hand."""

from __future__ import annotations

from afdcd.engine.throughput import Throughput


def test_throughput():
    window = Throughput()
    window.add(steps=1, waited=1.0, seconds=2.0)
    window.add(steps=1, waited=0.0, seconds=2.0)
    figures = window.figures(images=8)
    assert figures == {"data_time": 0.5, "data_share": 0.25, "images_per_second": 4.0}


def test_before_the_first_step():
    assert Throughput().figures(images=8) == {
        "data_time": 0.0,
        "data_share": 0.0,
        "images_per_second": 0.0,
    }
