"""Confusion matrix and boundary IoU: hand-worked numbers and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdcd.evaluation import BoundaryIoU, ConfusionMatrix, SegmentationEvaluator
from afdcd.evaluation.boundary import boundary_region


def test_worked_by_hand():
    """Class 0: 2 right of a union of 3; class 1: 1 right of 3; class 2 never there."""
    labels = np.array([[0, 0, 1, 1, 255]])
    prediction = np.array([[0, 0, 1, 0, 2]])
    matrix = ConfusionMatrix(3)
    matrix.update(prediction, labels)
    results = matrix.results(["a", "b", "c"])
    assert results["IoU-a"] == pytest.approx(100 * 2 / 3)
    assert results["IoU-b"] == pytest.approx(50)
    assert np.isnan(results["IoU-c"])
    assert results["mIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert matrix.mean_iou(absent="zero") == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert results["pACC"] == pytest.approx(75)
    assert results["mACC"] == pytest.approx(75)
    assert results["fwIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


@given(st.integers(2, 6), st.integers(0, 50), st.booleans())
def test_properties(classes: int, seed: int, perfect: bool):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (9, 11))
    prediction = labels if perfect else rng.integers(0, classes, (9, 11))
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction[:4], labels[:4])
    matrix.update(prediction[4:], labels[4:])
    for label in range(classes):
        both = ((labels == label) & (prediction == label)).sum()
        either = ((labels == label) | (prediction == label)).sum()
        if (labels == label).any():
            assert matrix.iou()[label] == pytest.approx(both / either)
    if perfect:
        assert matrix.mean_iou() == 1 and matrix.pixel_accuracy() == 1


def test_values_are_checked():
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=r"labels must be 0..1 or 255; got 0..7"):
        matrix.update(np.array([0, 0]), np.array([0, 7]))
    with pytest.raises(ValueError, match=r"predictions must be 0..1; got 3..3"):
        matrix.update(np.array([3]), np.array([0]))
    with pytest.raises(ValueError, match="the same shape"):
        matrix.update(np.zeros(3), np.zeros(4))
    assert matrix.counts.sum() == 0


def naive_region(mask: np.ndarray, distance: int) -> np.ndarray:
    padded = np.pad(mask, distance)
    out = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        window = padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1]
        out[y, x] = not window.all()
    return out


@given(st.integers(0, 100), st.integers(1, 3))
def test_boundary_region_against_naive_loop(seed: int, distance: int):
    mask = np.random.default_rng(seed).random((12, 15)) < 0.8
    np.testing.assert_array_equal(boundary_region(mask, distance), naive_region(mask, distance))


def test_boundary_iou_worked_by_hand():
    """6x6, class 1 is a 4x4 square, predicted one column too far right; boundary distance 1.

    Boundary regions are rings of 12 pixels. The rings of columns 1-4 and 2-5 share, in the outer
    two rows, columns 2-4 (3 each), and in the inner two rows none (columns 1, 4 against 2, 5).
    """
    labels, prediction = np.zeros((2, 6, 6), int)
    labels[1:5, 1:5] = 1
    prediction[1:5, 2:6] = 1
    metric = BoundaryIoU(2)
    metric.update(prediction, labels)
    assert metric.intersection[1] == 6 and metric.union[1] == 18
    assert metric.results(["a", "b"])["BoundaryIoU-b"] == pytest.approx(100 * 6 / 18)


def test_boundaries_of_two_halves_add_up():
    rng = np.random.default_rng(0)
    maps = [(rng.integers(0, 3, (8, 8)), rng.integers(0, 3, (8, 8))) for _ in range(4)]
    whole, *halves = (BoundaryIoU(3) for _ in range(3))
    for index, pair in enumerate(maps):
        whole.update(*pair)
        halves[index % 2].update(*pair)
    halves[0].merge(halves[1])
    assert halves[0].results(["a", "b", "c"]) == whole.results(["a", "b", "c"])


def test_perfect_boundaries_and_ignored_pixels():
    labels = np.kron([[0, 1], [2, 255]], np.ones((8, 8), int))
    prediction = np.where(labels == 255, 1, labels)
    metric = BoundaryIoU(4)
    metric.update(prediction, labels)
    results = metric.results(list("abcd"))
    assert results["mBoundaryIoU"] == 100 and np.isnan(results["BoundaryIoU-d"])


def test_evaluator_in_detectron2s_form():
    import torch

    labels = np.array([[0, 1], [1, 255]], np.uint8)
    evaluator = SegmentationEvaluator(["a", "b"], lambda record: labels)
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 1]]), 2).permute(2, 0, 1)
    for _ in range(2):
        evaluator.reset()
        evaluator.process([{"file_name": "x"}], [{"sem_seg": logits.float()}])
        assert evaluator.evaluate()["mIoU"] == 100
