"""Figures of feature maps, worked by hand and by naive loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch.nn import functional as F

from afdcd.analysis.features import (
    Similarities,
    linear_cka,
    patch_similarities,
    plane,
    relational_distance,
)
from afdcd.losses import LOSSES
from afdcd.losses.registry import LossContext, TapShape


def similarities(values: list[float]) -> Similarities:
    found = Similarities()
    found.add(torch.tensor(values))
    return found


def test_similarities_by_hand():
    """One patch of 1x3 positions, (1, 0), (0, 2) and (3, 3), and a column that fills none."""
    features = torch.tensor([[1.0, 0.0, 3.0, 9.0], [0.0, 2.0, 3.0, 9.0]]).view(1, 2, 1, 4)
    root = 0.5**0.5
    assert patch_similarities(features, (1, 3)).tolist() == pytest.approx([0.0, root, root])


def test_similarities_against_a_loop():
    features = torch.randn(2, 5, 5, 7, generator=torch.Generator().manual_seed(1))
    found = []
    for image, top, left in itertools.product(range(2), (0, 2), (0, 3)):
        patch = features[image, :, top : top + 2, left : left + 3].flatten(1).T
        for one, two in itertools.combinations(range(6), 2):
            found.append(float(F.cosine_similarity(patch[one], patch[two], dim=0)))
    fast = patch_similarities(features, (2, 3))
    assert sorted(fast.tolist()) == pytest.approx(sorted(found), abs=1e-6)
    assert len(patch_similarities(features, (99, 99))) == 2 * math.comb(35, 2)


def test_wasserstein_by_hand():
    """To turn {-1, 0, 1} into {0, 0, 0}, a third of the mass is moved by 1, twice."""
    one, two = similarities([-1.0, 0.0, 1.0]), similarities([0.0, 0.0, 0.0])
    assert one.wasserstein(two) == two.wasserstein(one) == pytest.approx(2 / 3)
    assert one.wasserstein(one) == 0.0
    # Two values against one: half of the mass goes from 1 to -1, by 2.
    assert similarities([1.0, -1.0]).wasserstein(similarities([-1.0])) == pytest.approx(1.0)
    assert similarities([0.25, 0.75]).mean() == pytest.approx(0.5)


def test_wasserstein_against_scipy():
    rng = np.random.default_rng(0)
    one, two = rng.uniform(-1, 1, 500), rng.uniform(-0.2, 1, 300)
    found = similarities(one.tolist()).wasserstein(similarities(two.tolist()))
    assert found == pytest.approx(wasserstein_distance(one, two), abs=1e-3)  # 1 / STEPS


def test_relational_distance_by_hand():
    """Centred, the student's three positions are (-1, -2), (-1, 1) and (2, 1); the teacher's lie
    on a line: -1, 0 and 1."""
    student = torch.tensor([[0.0, 0.0], [0.0, 3.0], [3.0, 3.0]])
    teacher = torch.tensor([[5.0], [6.0], [7.0]])
    s01, s02, s12 = -1 / 10**0.5, -4 / 5, -1 / 10**0.5
    t01, t02, t12 = 0.0, -1.0, 0.0
    d01, d02, d12 = abs(s01 - t01), abs(s02 - t02), abs(s12 - t12)
    expected = [(d01 + d02) / 2, (d01 + d12) / 2, (d02 + d12) / 2]
    assert relational_distance(student, teacher).tolist() == pytest.approx(expected)


def test_relations_and_alignment_survive_rotation_and_scale():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    turned = 3.0 * rows @ rotation + 5.0
    assert relational_distance(turned, rows).abs().max() < 1e-9
    assert linear_cka(turned, rows) == pytest.approx(1.0)


def test_cka_by_hand():
    """(1, -1, 0) and (1, 1, -2) are orthogonal; with (0, 0) beside it the second still is."""
    one = torch.tensor([[1.0], [-1.0], [0.0]])
    two = torch.tensor([[1.0], [1.0], [-2.0]])
    assert linear_cka(one, two) == 0.0
    assert linear_cka(one, torch.cat([one, two], 1)) == pytest.approx(4 / (2 * 40**0.5))
    assert math.isnan(linear_cka(one, torch.ones(3, 1)))


def test_plane_keeps_what_lies_in_one():
    """Distances of points of a plane in five dimensions; the wider direction comes first."""
    flat = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [4.0, 2.0]], dtype=torch.float64)
    axes, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    found = plane(flat @ axes[:2] + 7.0)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(flat, flat))
    assert found[:, 0].var() > found[:, 1].var()
    assert plane(torch.arange(3.0)[:, None])[:, 1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["afdcd", "cwd", "feature_kd", "logit_kd"])
def test_losses_show_what_they_compare(name: str):
    """A loss of what `compared` gives, behind no layers, is the loss."""
    torch.manual_seed(0)
    same = name == "logit_kd"
    shapes = TapShape(4 if same else 3, 8, 8), TapShape(4, 8, 8)
    settings = {"groups": 2, "pool": 0} if name == "afdcd" else {}
    loss = LOSSES.get(name).from_taps(*shapes, **settings)
    student, teacher = (torch.randn(1, s.channels, 8, 8) for s in shapes)

    def context() -> LossContext:
        return LossContext(generator=torch.Generator().manual_seed(3))

    with torch.no_grad():
        value = loss(student, teacher, context=context())
        shown = loss.compared(student, teacher, context=context())
        assert shown.shape == teacher.shape
        if name == "afdcd":
            assert float((shown - teacher).square().sum()) == pytest.approx(
                float(value["reconstruction"]), rel=1e-5
            )
        elif name == "cwd":
            from afdcd.losses.cwd import cwd

            assert float(cwd(shown, teacher)) == pytest.approx(float(value["cwd"]))
        elif name == "feature_kd":
            from afdcd.losses.feature_kd import feature_kd

            assert float(feature_kd(shown, teacher)) == pytest.approx(float(value["feature_kd"]))
        else:
            assert shown is student
