"""Scores and multi-scale logits against the published release (score.npz, eval.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afdcd.evaluation import ConfusionMatrix, multiscale_logits
from afdcd.models import build_segmentor, load_weights

from helpers import reference

SCORES = reference.manifest("score")
SCORE_VECTORS = reference.load("score")
EVAL = reference.manifest("eval")
EVAL_VECTORS = reference.load("eval")


def score(case: str) -> ConfusionMatrix:
    c = SCORES[case]
    matrix = ConfusionMatrix(c["nclass"])
    for index in range(c.get("updates", 1)):
        labels = SCORE_VECTORS[f"{case}/label{index}"].astype(np.int64)
        if c["kind"] == "float_logits":
            logits = reference.normal(f"{case}/logits", tuple(c["shape"]), c["logits_scale"])
            prediction = logits.argmax(1)
        else:
            prediction = SCORE_VECTORS[f"{case}/pred{index}"]
        matrix.update(prediction, np.where(labels == -1, 255, labels))
    return matrix


@pytest.mark.parametrize("case", SCORES)
def test_scores(case: str):
    matrix = score(case)
    np.testing.assert_array_equal(matrix.intersection, SCORE_VECTORS[f"{case}/total_inter"])
    if case == "s6_label255":
        # The release counts labels outside 0..K-1 into unions and into the pixels; 255 is
        # ignored here. Its 59 pixels hold some of 255, of which none can be right.
        labels = SCORE_VECTORS[f"{case}/label0"]
        outside = int((labels == 255).sum())
        assert outside > 0
        assert matrix.counts.sum() == SCORE_VECTORS[f"{case}/total_label"] - outside
        assert (matrix.union <= SCORE_VECTORS[f"{case}/total_union"]).all()
        assert SCORE_VECTORS[f"{case}/total_union"].sum() - matrix.union.sum() == outside
        return
    np.testing.assert_array_equal(matrix.union, SCORE_VECTORS[f"{case}/total_union"])
    assert matrix.counts.sum() == SCORE_VECTORS[f"{case}/total_label"]
    expected = SCORE_VECTORS[f"{case}/mIoU"]
    np.testing.assert_allclose(matrix.mean_iou(absent="zero"), expected, atol=1e-6)
    accuracy = SCORE_VECTORS.get(f"{case}/pixAcc_true_argmax", SCORE_VECTORS[f"{case}/pixAcc"])
    if case == "s5_all_ignored":
        assert np.isnan(matrix.pixel_accuracy())  # the release says 0 of 0 is 0
        return
    # The release truncates float logits to integers before its argmax; we don't.
    np.testing.assert_allclose(matrix.pixel_accuracy(), accuracy, atol=1e-6)


@pytest.fixture(scope="module")
def segmentor():
    model = build_segmentor("deeplabv3", "resnet18", EVAL["num_class"])
    load_weights(model, reference.published_state_dict("deeplabv3_resnet18"))
    return model.double().eval()


@pytest.mark.slow
@pytest.mark.parametrize("case", EVAL["cases"])
@pytest.mark.parametrize("size", EVAL["sizes"], ids=lambda s: f"{s[0]}x{s[1]}")
def test_multiscale(case: str, size: list[int], segmentor):
    key = f"{case}/{size[0]}x{size[1]}"
    image = torch.from_numpy(reference.normal(f"image/{size[0]}x{size[1]}", (1, 3, *size)))

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        return segmentor.sem_seg_head.layers(segmentor.backbone(x))

    with torch.no_grad():
        logits = multiscale_logits(logits_of, image.double(), **EVAL["cases"][case])
    np.testing.assert_allclose(logits.norm().item(), EVAL_VECTORS[f"{key}/l2"], rtol=1e-9)
    np.testing.assert_allclose(logits.mean().item(), EVAL_VECTORS[f"{key}/mean"], rtol=1e-9)
    expected = EVAL_VECTORS[f"{key}/sample"]
    np.testing.assert_allclose(
        reference.strided_sample(logits, 512), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )
    prediction = logits.argmax(1).numpy()
    histogram = np.bincount(prediction.ravel(), minlength=EVAL["num_class"])
    np.testing.assert_array_equal(histogram, EVAL_VECTORS[f"{key}/argmax_histogram"])

    labels = reference.integers(f"eval/label/{size[0]}x{size[1]}", (1, *size), EVAL["num_class"])
    matrix = ConfusionMatrix(EVAL["num_class"])
    matrix.update(prediction, labels)
    expected_miou = EVAL_VECTORS[f"{key}/mIoU"]
    np.testing.assert_allclose(matrix.mean_iou(absent="zero"), expected_miou, atol=1e-6)
    # The release truncates the logits to integers before the argmax of its pixel accuracy.
    truncated = logits.long().argmax(1).numpy()
    np.testing.assert_allclose(
        (truncated == labels).mean(), EVAL_VECTORS[f"{key}/pixAcc"], atol=1e-6
    )
