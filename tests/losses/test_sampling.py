"""Patch sampling: the blocks, and that what they estimate has no bias."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

import afdcd.losses.afdcd.loss as afdcd_module
from afdcd.losses import AfDCDLoss, LossContext
from afdcd.losses.afdcd.patches import Blocks, block_features, draw_blocks, positions


def build(**options) -> AfDCDLoss:
    torch.manual_seed(0)
    options = {"groups": 4, "patch": (2, 2), "pool": 2, "temperature": 1.0} | options
    return AfDCDLoss(5, 8, **options).double()


def maps(height: int, width: int, batch: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(batch, c, height, width, generator=generator, dtype=torch.float64)
        for c in (5, 8)
    )
    mask = (torch.rand(batch, 1, height, width, generator=generator) > 0.5).double()
    return student.requires_grad_(), teacher, mask


# 8x8 is four blocks of 4x4; 10x7 leaves a remainder below and to the right.
@pytest.mark.parametrize("size", [(8, 8), (10, 7)])
@pytest.mark.parametrize("projector", ["plain", "enhanced"])
@pytest.mark.parametrize("reduction", ["published", "mean"])
def test_expectation_of_value_and_gradient(size, projector, reduction, monkeypatch):
    """The mean over every possible draw is the whole map's value, and so is the gradient's."""
    loss = build(projector=projector, reduction=reduction)
    student, teacher, mask = maps(*size)
    leaves = [student, *loss.parameters()]
    expected = loss(student, teacher, mask=mask)
    every = draw_blocks((1, *size), (4, 4), share=1.0)
    count = len(every.image)
    draws = list(itertools.combinations(range(count), 2))
    loss.settings = dataclasses.replace(loss.settings, sample=2 / count)
    totals = dict.fromkeys(expected, 0.0)
    for draw in draws:
        index = torch.tensor(draw)
        chosen = Blocks(*(t[index] for t in every[:3]), every.size, every.shape, count / 2)
        monkeypatch.setattr(afdcd_module, "draw_blocks", lambda *a, c=chosen, **k: c)
        for name, value in loss(student, teacher, mask=mask).items():
            totals[name] = totals[name] + value / len(draws)
    for name, value in expected.items():
        torch.testing.assert_close(totals[name], value, rtol=1e-9, atol=0)
        for mine, theirs in zip(
            torch.autograd.grad(totals[name], leaves, retain_graph=True),
            torch.autograd.grad(value, leaves, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_draws_are_uniform_and_seeded():
    counts = torch.zeros(12)
    for seed in range(600):
        blocks = draw_blocks(
            (2, 8, 12), (4, 4), share=0.25, generator=torch.Generator().manual_seed(seed)
        )
        assert len(blocks.image) == 3 and blocks.factor == 4
        assert sorted(blocks.image.bincount(minlength=2).tolist()) == [1, 2]
        counts[(blocks.image * 2 + blocks.row) * 3 + blocks.column] += 1
    # Each of 12 is drawn with probability 1/4: 150 times, standard deviation 10.6.
    assert (counts - 150).abs().max() < 45
    again = draw_blocks((2, 8, 12), (4, 4), share=0.25, generator=torch.Generator().manual_seed(3))
    once = draw_blocks((2, 8, 12), (4, 4), share=0.25, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(again[:3], once[:3], strict=True))
    assert len(draw_blocks((1, 8, 8), (4, 4), share=0.01).image) == 1


def test_a_step_is_a_function_of_the_generator():
    loss = build(sample=0.5)
    student, teacher, _ = maps(16, 16, batch=2)

    def value(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return loss(student, teacher, context=LossContext(generator))["reconstruction"].item()

    assert value(1) == value(1) != value(2)


def test_blocks_and_halos():
    features = torch.arange(1.0, 36).view(1, 1, 5, 7)
    last = Blocks(torch.tensor([0]), torch.tensor([1]), torch.tensor([1]), (4, 4), (1, 5, 7), 1.0)
    # Row 4, columns 4 to 6: 4 * 7 + 4 + 1 = 33.
    block = torch.zeros(4, 4)
    block[0, :3] = torch.tensor([33.0, 34, 35])
    torch.testing.assert_close(block_features(features, last)[0, 0], block)
    flat, inside = positions(last, halo=1)
    assert flat.shape == (1, 6, 6)
    assert inside[0].tolist() == [[True] * 4 + [False] * 2] * 2 + [[False] * 6] * 4
    assert flat[0, 0, 0] == 3 * 7 + 3


def test_under_autocast_and_recomputed():
    loss = build(sample=0.5, recompute=True).float()
    student, teacher, mask = (t.detach().float() for t in maps(16, 16))
    blocks = torch.Generator().manual_seed(0)
    exact = loss(student, teacher, mask=mask, context=LossContext(blocks))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(student, teacher, mask=mask, context=LossContext(blocks.manual_seed(0)))
    sum(low.values()).backward()
    for name, value in low.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0)


@pytest.mark.parametrize("sample", [0.0, 1.5, -1.0])
def test_refusals(sample: float):
    with pytest.raises(ValueError, match="sample is the share of patches"):
        build(sample=sample)
