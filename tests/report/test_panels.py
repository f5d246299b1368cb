"""Pictures and tables."""

from __future__ import annotations

import numpy as np

from afdcd.report import comparison_panel
from afdcd.report.panels import BETTER, RIGHT, WORSE, WRONG, colorize, difference
from afdcd.utils.tables import comparison_table


def test_colorize():
    picture = colorize(np.array([[0, 1, 255]], np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert picture.tolist() == [[[3, 2, 1], [6, 5, 4], [0, 0, 0]]]


def test_difference_worked_by_hand():
    labels = np.array([[0, 0, 0, 0, 255]], np.uint8)
    before = np.array([[0, 1, 1, 0, 0]])
    after = np.array([[0, 1, 0, 1, 1]])
    picture = difference(labels, before, after)
    expected = [RIGHT, WRONG, BETTER, WORSE, (0, 0, 0)]
    assert [tuple(c) for c in picture[0].tolist()] == expected


def test_panel_is_a_row_of_pictures():
    image, labels = np.zeros((10, 12, 3), np.uint8), np.zeros((10, 12), np.uint8)
    panel = comparison_panel(
        image, labels, {"a": labels, "b": labels}, [(1, 2, 3)], compare=("a", "b"), scale=3
    )
    assert panel.shape == (30 + 18, 5 * 36 + 4 * 4, 3) and panel.dtype == np.uint8


def test_table():
    row = {"miou": 12.345, "boundary_iou": 1.0, "params": 2_500_000, "macs": 3e6, "iterations": 7}
    table = comparison_table({"student": {**row, "seconds_per_step": 0.5, "seconds": 3.5}})
    for text in ("student", "12.35", "2.50 M", "3 M", "7", "0.500", "4 s"):
        assert text in table
