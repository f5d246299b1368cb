"""Masks, the projection and the reconstruction."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afdcd.losses import centre_mask, masked_reconstruction, random_mask
from afdcd.losses.afdcd.projector import (
    EnhancedProjector,
    PlainProjector,
    build_align,
    build_projector,
)


def test_worked_by_hand():
    """Hidden positions count in full, kept ones by their difference; divided by N only."""
    student = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])  # [2, 1, 1, 2]
    teacher = torch.tensor([[[[3.0, 5.0]]], [[[1.0, 1.0]]]])
    mask = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    # image 0: (1 - 3)^2 + (0 - 5)^2 = 29; image 1: 1 + 1 = 2
    assert masked_reconstruction(student, teacher, mask=mask).item() == pytest.approx(31 / 2)
    mean = masked_reconstruction(student, teacher, mask=mask, reduction="mean")
    assert mean.item() == pytest.approx(31 / 4)


def test_zero_when_equal_and_unmasked():
    features = torch.randn(2, 3, 4, 5)
    assert masked_reconstruction(features, features, mask=None) == 0


def test_align_bias_does_not_leak_into_hidden_positions():
    align = nn.Conv2d(2, 3, 1)
    nn.init.constant_(align.bias, 7.0)
    loss = masked_reconstruction(
        torch.randn(1, 2, 4, 4), torch.zeros(1, 3, 4, 4), align=align, mask=torch.zeros(1, 1, 4, 4)
    )
    assert loss == 0


def test_student_is_resized_to_the_teacher():
    student, teacher = torch.randn(1, 3, 5, 9), torch.randn(1, 3, 9, 17)
    resized = nn.functional.interpolate(student, size=(9, 17), mode="bilinear")
    torch.testing.assert_close(
        masked_reconstruction(student, teacher, mask=None),
        masked_reconstruction(resized, teacher, mask=None),
    )


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.75, 1.0])
def test_random_mask(ratio: float):
    mask = random_mask(8, 40, 50, ratio=ratio, generator=torch.Generator().manual_seed(1))
    assert mask.shape == (8, 1, 40, 50)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert (1 - mask).mean().item() == pytest.approx(ratio, abs=0.02)


def test_random_mask_is_seeded():
    def draw(seed: int) -> torch.Tensor:
        return random_mask(2, 8, 8, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))


@pytest.mark.parametrize(
    ("size", "rows"), [(9, range(3, 6)), (32, range(10, 21)), (2, range(0, 1))]
)
def test_centre_mask(size: int, rows: range):
    mask = centre_mask(1, size, size)
    hidden = (mask[0, 0] == 0).nonzero().tolist()
    assert hidden == [[y, x] for y in rows for x in rows]


def test_enhanced_projector_is_the_mean_of_two_adaptors():
    projector = EnhancedProjector(4)
    x = torch.randn(1, 4, 5, 5)
    first = projector.block_1(x)
    second = projector.block_2(first)
    expected = (projector.adaptor_1(first) + projector.adaptor_2(second)) / 2
    torch.testing.assert_close(projector(x), expected)


def test_parts_by_name():
    assert isinstance(build_projector("plain", 4), PlainProjector)
    assert isinstance(build_align(4, 4), nn.Identity)
    assert build_align(4, 6).weight.shape == (6, 4, 1, 1)
    with pytest.raises(ValueError, match="plain, enhanced"):
        build_projector("big", 4)


def test_refusals():
    features = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"student \(1, 3, 4, 4\) and teacher \(1, 5, 4, 4\)"):
        masked_reconstruction(features, torch.zeros(1, 5, 4, 4), mask=None)
    with pytest.raises(ValueError, match=r"share of hidden positions, 0\.\.1; got 1\.5"):
        masked_reconstruction(features, features, mask_ratio=1.5)
    with pytest.raises(ValueError, match="mask must be one of random, centre"):
        masked_reconstruction(features, features, mask="center")
    with pytest.raises(ValueError, match=r"mask must be \[N, 1, H, W\]"):
        masked_reconstruction(features, features, mask=torch.ones(1, 3, 4, 4))
