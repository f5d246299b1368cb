"""What tells a teacher of other classes, or none, from one that fits."""

from __future__ import annotations

import numpy as np
import pytest

from afdcd.evaluation import ConfusionMatrix
from afdcd.tasks.semantic_segmentation.teacher import majority_miou, permuted_classes


def test_majority_worked_by_hand():
    # 60 of 100 pixels; IoU of the commonest class 0.6, of the other two 0.
    assert majority_miou(np.array([60, 30, 10, 0])) == pytest.approx(20.0)
    assert majority_miou(np.zeros(3, int)) == 0.0


@pytest.mark.parametrize(
    ("counts", "moved"),
    [
        ([[9, 1, 0], [0, 9, 1], [1, 0, 9]], []),
        ([[1, 9, 0], [9, 1, 0], [0, 0, 9]], [(0, 1), (1, 0)]),
        ([[9, 0, 0], [9, 0, 0], [9, 0, 0]], []),  # one class everywhere
        ([[0, 9, 0], [0, 0, 9], [9, 0, 0]], [(0, 1), (1, 2), (2, 0)]),
        ([[0, 0, 0], [0, 9, 0], [0, 0, 9]], []),
    ],
)
def test_permuted_classes(counts, moved):
    confusion = ConfusionMatrix(3)
    confusion.counts = np.array(counts)
    assert permuted_classes(confusion) == moved
