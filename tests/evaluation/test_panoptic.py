"""Panoptic quality against hand-worked cases and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from afdcd.evaluation import PanopticQuality

THING, STUFF = 3, 7
CATEGORIES = {THING: True, STUFF: False}


def row(*runs: tuple[int, int]) -> np.ndarray:
    """An image of one row: (segment id, how many pixels) after each other."""
    return np.concatenate([np.full(count, value) for value, count in runs])[None]


def segment(identity: int, category: int = THING, crowd: int = 0) -> dict:
    return {"id": identity, "category_id": category, "iscrowd": crowd}


def quality(prediction, predicted, truth, true, categories=None) -> dict[str, float]:
    metric = PanopticQuality(categories or {THING: True})
    metric.update(prediction, predicted, truth, true)
    return metric.results()


def check(figures: dict[str, float], pq: float, sq: float, rq: float) -> None:
    got = [figures[name] / 100 for name in ("PQ", "SQ", "RQ")]
    assert got == pytest.approx([pq, sq, rq])


def test_one_match_by_hand():
    # True: 10 pixels. Predicted: 8 of them and 2 others. IoU 8 / 12.
    truth = row((1, 10), (2, 10))
    prediction = row((0, 2), (5, 10), (0, 8))
    figures = quality(prediction, {5: THING}, truth, [segment(1), segment(2)])
    # One match, and one truth is missed: PQ = (8 / 12) / (1 + 1 / 2).
    check(figures, 8 / 12 / 1.5, 8 / 12, 1 / 1.5)


@pytest.mark.parametrize(("inside", "matches"), [(6, False), (7, True)])
def test_an_iou_of_exactly_a_half_is_no_match(inside: int, matches: bool):
    # inside / (12 - inside + 6 ...): truth 9 pixels, prediction 9, `inside` shared.
    truth = row((1, 9), (0, 0), (2, 9))
    prediction = row((0, 9 - inside), (5, 9), (0, inside))
    union = 18 - inside
    assert (inside / union > 0.5) == matches and (inside / union == 0.5) == (inside == 6)
    figures = quality(prediction, {5: THING}, truth, [segment(1), segment(2)])
    if matches:
        check(figures, inside / union / 1.5, inside / union, 1 / 1.5)
    else:  # two missed, one invented
        check(figures, 0, 0, 0)


def test_void_pixels_leave_the_union():
    # 6 true pixels beside 4 void ones; all ten are predicted: IoU 6 / (10 - 4).
    truth, prediction = row((1, 6), (0, 4)), row((5, 10))
    check(quality(prediction, {5: THING}, truth, [segment(1)]), 1, 1, 1)


def test_predicting_nothing_on_void_costs_nothing():
    truth, prediction = row((1, 6), (0, 4)), row((5, 6), (0, 4))
    check(quality(prediction, {5: THING}, truth, [segment(1)]), 1, 1, 1)


@pytest.mark.parametrize(("void", "excused"), [(5, False), (6, True)])
def test_a_prediction_mostly_on_void_is_no_mistake(void: int, excused: bool):
    # Prediction 6 has ten pixels, `void` of them void, the others on what segment 5 has.
    truth = row((1, 40), (0, void))
    prediction = row((5, 30 + void), (6, 10))
    figures = quality(prediction, {5: THING, 6: THING}, truth, [segment(1)])
    iou = (30 + void) / 40
    check(figures, iou if excused else iou / 1.5, iou, 1 if excused else 1 / 1.5)


@pytest.mark.parametrize(("on_crowd", "excused"), [(5, False), (6, True)])
def test_a_prediction_mostly_on_crowd_of_its_category_is_no_mistake(on_crowd: int, excused: bool):
    truth = row((1, 40), (2, on_crowd))
    prediction = row((5, 30 + on_crowd), (6, 10))
    true = [segment(1), segment(2, crowd=1)]
    figures = quality(prediction, {5: THING, 6: THING}, truth, true)
    iou = (30 + on_crowd) / 40
    check(figures, iou if excused else iou / 1.5, iou, 1 if excused else 1 / 1.5)


def test_crowd_of_another_category_excuses_nothing():
    categories = {THING: True, STUFF: True}
    truth = row((1, 10), (2, 10))
    prediction = row((5, 10), (6, 10))
    true = [segment(1), segment(2, STUFF, crowd=1)]
    figures = quality(prediction, {5: THING, 6: THING}, truth, true, categories)
    # Only THING was seen: one match, one invented.
    check(figures, 1 / 1.5, 1, 1 / 1.5)


def test_void_and_crowd_excuse_together():
    # 3 of 10 pixels on void and 3 on crowd: neither is enough alone.
    truth = row((1, 40), (2, 3), (0, 3))
    prediction = row((5, 36), (6, 10))
    figures = quality(prediction, {5: THING, 6: THING}, truth, [segment(1), segment(2, crowd=1)])
    check(figures, 36 / 40, 36 / 40, 1)


def test_a_crowd_is_neither_matched_nor_missed():
    truth = row((1, 10), (2, 10))
    true = [segment(1), segment(2, crowd=1)]
    check(quality(row((5, 10), (0, 10)), {5: THING}, truth, true), 1, 1, 1)
    # Not even by a prediction that covers it exactly.
    check(quality(row((5, 10), (6, 10)), {5: THING, 6: THING}, truth, true), 1, 1, 1)


def test_another_category_never_matches():
    truth, prediction = row((1, 10)), row((5, 10))
    figures = quality(prediction, {5: STUFF}, truth, [segment(1)], CATEGORIES)
    check(figures, 0, 0, 0)  # missed as a thing, invented as stuff
    assert figures["PQ_th"] == figures["PQ_st"] == 0


def test_means_over_what_was_seen():
    truth, prediction = row((1, 10), (2, 10)), row((5, 10), (6, 8), (0, 2))
    true = [segment(1), segment(2, STUFF)]
    figures = quality(prediction, {5: THING, 6: STUFF}, truth, true, {**CATEGORIES, 9: False})
    assert figures["PQ_th"] == pytest.approx(100) and figures["PQ_st"] == pytest.approx(80)
    assert figures["PQ"] == pytest.approx(90)  # category 9 was nowhere
    nothing = PanopticQuality(CATEGORIES).results()
    assert all(math.isnan(value) for value in nothing.values())


def test_images_add_up_in_any_number_of_processes():
    rng = np.random.default_rng(0)
    whole, parts = PanopticQuality(CATEGORIES), [PanopticQuality(CATEGORIES) for _ in range(2)]
    for index in range(6):
        image = random_image(rng)
        whole.update(*image)
        parts[index % 2].update(*image)
    parts[0].merge(parts[1])
    assert parts[0].results() == pytest.approx(whole.results())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((row((5, 3)), {5: THING}, row((1, 4)), [segment(1)]), "differ"),
        ((row((5, 4)), {}, row((1, 4)), [segment(1)]), "predicted segment 5 has no category"),
        ((row((5, 4)), {5: THING}, row((1, 4)), []), "true segment 1 has no category"),
        ((row((5, 4)), {5: 99}, row((1, 4)), [segment(1)]), "predicted category 99 is unknown"),
    ],
)
def test_what_it_refuses(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        quality(*arguments)


def random_image(rng: np.random.Generator) -> tuple:
    """Blocks of segments, the prediction a disturbed truth: matches, misses and inventions."""
    size = 24
    truth, prediction = np.zeros((size, size), int), np.zeros((size, size), int)
    true, predicted = [], {}
    for index in range(6):
        top, left = rng.integers(0, size - 8, 2)
        height, width = rng.integers(4, 9, 2)
        category = int(rng.choice([THING, STUFF]))
        truth[top : top + height, left : left + width] = index + 1
        true.append(segment(index + 1, category))
        dy, dx = rng.integers(0, 3, 2)
        if rng.random() < 0.8:
            area = slice(top + dy, top + dy + height), slice(left + dx, left + dx + width)
            prediction[area] = index + 11
            other = rng.random() < 0.15
            predicted[index + 11] = int(rng.choice([THING, STUFF])) if other else category
    present, shown = set(np.unique(truth)), set(np.unique(prediction))
    true = [s for s in true if s["id"] in present]
    return prediction, {k: v for k, v in predicted.items() if k in shown}, truth, true


def test_equals_torchmetrics_without_crowds_and_gaps():
    """With crowds there is no equality: torchmetrics has no rule for them.

    Nor where a prediction leaves pixels out: torchmetrics doesn't count truths missed there.
    """
    detection = pytest.importorskip("torchmetrics.detection")
    theirs = detection.PanopticQuality(
        {THING}, {STUFF}, allow_unknown_preds_category=True, return_sq_and_rq=True
    )
    ours = PanopticQuality(CATEGORIES)
    rng = np.random.default_rng(1)
    void = 99  # a category that it doesn't know counts as void there

    def coded(ids: np.ndarray, categories: dict[int, int]) -> torch.Tensor:
        # torchmetrics joins the pixels of one kind of stuff to one segment.
        table = np.array([categories.get(i, void) for i in range(ids.max() + 1)])
        return torch.from_numpy(np.stack([table[ids], ids], axis=-1))[None]

    for _ in range(30):
        prediction, predicted, truth, true = random_image(rng)
        categories = {s["id"]: s["category_id"] for s in true}
        prediction[prediction == 0] = 30
        predicted[30] = STUFF
        for ids, names in ((prediction, predicted), (truth, categories)):
            stuff = [i for i, c in names.items() if c == STUFF]
            ids[np.isin(ids, stuff)] = stuff[0] if stuff else 0
            for other in stuff[1:]:
                del names[other]
        true = [segment(i, c) for i, c in categories.items()]
        theirs.update(coded(prediction, predicted), coded(truth, categories))
        ours.update(prediction, predicted, truth, true)
    pq, sq, rq = (float(value) for value in theirs.compute())
    check(ours.results(), pq, sq, rq)
    assert 0.1 < pq < 0.9
