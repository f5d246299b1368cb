"""Scores of depths: hand-worked numbers, a naive loop, several processes."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from afdcd.data.depth import DepthForm, DepthReader
from afdcd.evaluation.depth import FIGURES, DepthEvaluator, depth_figures, depth_of


def naive(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    pairs = [
        (y, t)
        for row, others in zip(prediction.tolist(), truth.tolist(), strict=True)
        for y, t in zip(row, others, strict=True)
        if t > 0
    ]
    n = len(pairs)
    result = {
        "AbsRel": 100 * sum(abs(y - t) / t for y, t in pairs) / n,
        "RMSE": math.sqrt(sum((y - t) ** 2 for y, t in pairs) / n),
        "logRMSE": math.sqrt(sum((math.log(y) - math.log(t)) ** 2 for y, t in pairs) / n),
    }
    for k in (1, 2, 3):
        result[f"delta{k}"] = 100 * sum(max(y / t, t / y) < 1.25**k for y, t in pairs) / n
    return result


def test_worked_by_hand():
    """Off by +1 of 2, by -1 of 4, exact, and a pixel that doesn't count."""
    prediction = np.array([[3.0, 3.0, 5.0, 99.0]])
    truth = np.array([[2.0, 4.0, 5.0, 0.0]])
    figures = depth_figures(prediction, truth)
    assert list(figures) == list(FIGURES)
    assert figures["AbsRel"] == pytest.approx(100 * (1 / 2 + 1 / 4) / 3)
    assert figures["RMSE"] == pytest.approx(math.sqrt(2 / 3))
    logs = math.log(1.5) ** 2 + math.log(4 / 3) ** 2
    assert figures["logRMSE"] == pytest.approx(math.sqrt(logs / 3))
    # Ratios 1.5, 1.333 and 1; the limits are 1.25, 1.5625 and 1.953.
    assert figures["delta1"] == pytest.approx(100 / 3)
    assert figures["delta2"] == figures["delta3"] == 100
    # A ratio of exactly 1.25 is not below it.
    assert depth_figures(np.array([[5.0]]), np.array([[4.0]]))["delta1"] == 0
    # Scaled by 4 / 3: 4, 4, 6.667.
    scaled = depth_figures(prediction, truth, alignment="median")
    assert scaled["AbsRel"] == pytest.approx(100 * (1 + 0 + 1 / 3) / 3)


def test_beside_a_naive_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.uniform(0.5, 20, (6, 7)).astype(np.float32)
        truth[rng.random((6, 7)) < 0.3] = 0
        prediction = (truth + 1) * rng.uniform(0.5, 2, (6, 7)).astype(np.float32)
        figures = depth_figures(prediction, truth)
        assert figures == pytest.approx(naive(prediction, truth), rel=1e-12)
        factor = np.median(truth[truth > 0].astype(float)) / np.median(
            prediction[truth > 0].astype(float)
        )
        scaled = depth_figures(prediction, truth, alignment="median")
        assert scaled == pytest.approx(naive(prediction.astype(float) * factor, truth), rel=1e-12)
        other = depth_figures(prediction * np.float32(8), truth, alignment="median")
        assert other == pytest.approx(scaled, rel=1e-12)


def test_disparities_are_fitted_first():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 20, (6, 7))
    truth[rng.random((6, 7)) < 0.3] = 0
    prediction = truth + rng.uniform(0, 9, (6, 7))
    y, t = prediction[truth > 0], truth[truth > 0]
    factor, offset = np.linalg.lstsq(np.stack([y, np.ones_like(y)], 1), t, rcond=None)[0]
    error = factor * y + offset - t
    figures = depth_figures(prediction, truth, alignment="affine")
    assert figures == pytest.approx(
        {
            "FitMAE": 100 * np.abs(error).mean() / np.abs(t - np.median(t)).mean(),
            "FitRMSE": 100 * error.std() / t.std(),
        }
    )
    moved = np.where(truth > 0, 0.2 * truth + 40, 0)
    for other in ((3 * prediction + 7, truth), (prediction, moved)):
        assert depth_figures(*other, alignment="affine") == pytest.approx(figures)
    assert depth_figures(2 * truth + 1, truth, alignment="affine")["FitMAE"] < 1e-9
    # A prediction upside down, or of one value, says no more than the mean.
    for useless in (30 - truth, np.ones_like(truth)):
        found = depth_figures(useless, truth, alignment="affine")
        assert found["FitRMSE"] == pytest.approx(100)
    assert depth_figures(prediction, np.ones_like(truth), alignment="affine") is None


@pytest.fixture
def images(tmp_path) -> list[tuple[dict, dict]]:
    rng = np.random.default_rng(1)
    found = []
    for index in range(7):
        truth = rng.uniform(1, 9, (5, 4)).astype(np.float32)
        truth[0] = 0
        if index == 3:
            truth[:] = 0
        np.save(tmp_path / f"{index}.npy", truth)
        output = torch.from_numpy(rng.normal(1, 1, (1, 5, 4)).astype(np.float32))
        record = {"sem_seg_file_name": str(tmp_path / f"{index}.npy")}
        found.append((record, {"sem_seg": output}))
    return found


def scored(images: list[tuple[dict, dict]]) -> DepthEvaluator:
    evaluator = DepthEvaluator(DepthReader(DepthForm()))
    for record, output in images:
        evaluator.process([record], [output])
    return evaluator


def test_the_mean_over_images_with_a_depth(images):
    figures = scored(images).evaluate()
    each = [
        naive(np.exp(output["sem_seg"][0].numpy()), np.load(record["sem_seg_file_name"]))
        for index, (record, output) in enumerate(images)
        if index != 3
    ]
    for name in FIGURES:
        assert figures[name] == pytest.approx(sum(e[name] for e in each) / 6, rel=1e-6)
    assert all(math.isnan(value) for value in scored(images[3:4]).evaluate().values())


def test_processes_give_the_same_to_the_last_bit(images):
    whole = scored(images)
    for cut in range(8):
        first, second = scored(images[:cut]), scored(images[cut:][::-1])
        first.merge(pickle.loads(pickle.dumps(second)))
        assert first.evaluate() == whole.evaluate()
        assert first.constant() == whole.constant()


def test_the_error_of_a_constant(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, 2.0, 4.0, 0.0]], np.float32))
    record = {"sem_seg_file_name": str(tmp_path / "a.npy")}
    evaluator = scored([(record, {"sem_seg": torch.zeros(1, 1, 4)})])
    # The median is 2: off by 1 of 1, by nothing, by 2 of 4.
    assert evaluator.constant() == pytest.approx(100 * (1 + 0 + 1 / 2) / 3)


def test_depths_are_positive_and_finite():
    depths = depth_of(torch.tensor([-1e9, 0.0, math.log(3.0), 1e9]))
    assert depths.dtype == np.float32 and (depths > 0).all() and np.isfinite(depths).all()
    np.testing.assert_allclose(depths[1:3], [1, 3], rtol=1e-6)
    assert depth_of(torch.tensor([1.0], dtype=torch.bfloat16)).dtype == np.float32


def test_sizes_that_differ():
    with pytest.raises(ValueError, match=r"a prediction of \[2, 3\] pixels .* \[2, 4\]"):
        depth_figures(np.ones((2, 3)), np.ones((2, 4)))
