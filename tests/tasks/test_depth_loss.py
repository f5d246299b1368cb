"""The losses of depth: hand-worked numbers, a naive loop, and properties."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from afdcd.tasks.depth.loss import scale_and_shift_invariant, scale_invariant_log


def naive(prediction: torch.Tensor, target: torch.Tensor, invariance: float) -> float:
    """Equation 4, pixel by pixel, of predictions at the targets' size."""
    values = []
    for log_depth, depths in zip(prediction[:, 0].tolist(), target.tolist(), strict=True):
        squares, total, n = 0.0, 0.0, 0
        for row, others in zip(log_depth, depths, strict=True):
            for y, t in zip(row, others, strict=True):
                if t > 0:
                    d = y - math.log(t)
                    squares, total, n = squares + d * d, total + d, n + 1
        if n:
            values.append(squares / n - invariance * total * total / n**2)
    return sum(values) / len(values) if values else 0.0


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(3, 1, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.rand(3, 5, 6, generator=generator, dtype=torch.float64) * 9 + 0.1
    target[torch.rand(3, 5, 6, generator=generator) < 0.3] = 0
    return prediction, target


def test_worked_by_hand():
    """Differences 1, 3 and none: squares 1 + 9, sum 4."""
    prediction = torch.tensor([[[[1.0, 3.0, 7.0]]]])
    target = torch.tensor([[[1.0, 1.0, 0.0]]])
    for invariance, expected in ((0.0, 5.0), (0.5, 3.0), (1.0, 1.0)):
        assert scale_invariant_log(prediction, target, invariance=invariance).item() == expected
    # A second image, off by 2 in its one pixel, 4 (or half of it); and one without a depth.
    prediction = torch.cat([prediction, torch.full((2, 1, 1, 3), 2.0)])
    target = torch.cat([target, torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]])])
    assert scale_invariant_log(prediction, target, invariance=0.0).item() == (5 + 4) / 2
    assert scale_invariant_log(prediction, target, invariance=0.5).item() == (3 + 2) / 2


@pytest.mark.parametrize("invariance", [0.0, 0.5, 0.85, 1.0])
def test_beside_a_naive_loop(invariance: float):
    prediction, target = case()
    target[1] = 0
    value = scale_invariant_log(prediction, target, invariance=invariance)
    assert value.item() == pytest.approx(naive(prediction, target, invariance), rel=1e-12)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: scale_invariant_log(x, target, invariance=invariance), (prediction,)
    )


def test_a_common_factor():
    prediction, target = case()
    for invariance, same in ((1.0, True), (0.5, False)):
        one = scale_invariant_log(prediction, target, invariance=invariance)
        factors = torch.tensor([0.1, 3.0, 40.0], dtype=torch.float64)[:, None, None]
        other = scale_invariant_log(prediction, target * factors, invariance=invariance)
        assert torch.isclose(one, other, rtol=1e-10) == same
    perfect = torch.where(target > 0, target, 1).log()[:, None]
    assert scale_invariant_log(perfect, target, invariance=0.5).item() == 0
    assert scale_invariant_log(perfect + 2, target, invariance=1.0).item() < 1e-28


def test_pixels_without_a_depth_have_no_gradient():
    prediction, target = case()
    prediction.requires_grad_()
    scale_invariant_log(prediction, target, invariance=0.5).backward()
    assert torch.equal(prediction.grad[:, 0] != 0, target > 0)
    prediction.grad = None
    value = scale_invariant_log(prediction, torch.zeros_like(target), invariance=0.5)
    value.backward()
    assert value.item() == 0 and torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_no_cancellation_far_from_the_truth():
    """In float32, squares of 1000 less a square of a mean would lose the variance of 0.01."""
    prediction = torch.tensor([[[[1000.0, 1000.2]]]])
    value = scale_invariant_log(prediction, torch.ones(1, 1, 2), invariance=1.0)
    assert value.item() == pytest.approx(0.01, rel=2e-3)


def test_float32_under_autocast():
    prediction, target = (x.float() for x in case())
    expected = scale_invariant_log(prediction.bfloat16().float(), target, invariance=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = scale_invariant_log(prediction.bfloat16(), target, invariance=0.5)
    assert value.dtype == torch.float32 and torch.equal(value, expected)


def test_upsampled_with_corners_on_corners():
    prediction = torch.tensor([[[[0.0, 1.0]]]])
    target = torch.exp(torch.tensor([[[0.0, 0.5, 1.0]]]))
    assert scale_invariant_log(prediction, target, invariance=0.0).item() < 1e-12


def naive_disparities(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Equations 5 to 7, pixel by pixel."""

    def normalized(values: list[float]) -> list[float]:
        middle = statistics.median_low(values)
        scale = sum(abs(v - middle) for v in values) / len(values)
        return [(v - middle) / max(scale, 1e-6) for v in values]

    losses = []
    for log_depth, truths in zip(prediction[:, 0], target, strict=True):
        pairs = [
            (math.exp(-y), t)
            for y, t in zip(log_depth.flatten().tolist(), truths.flatten().tolist(), strict=True)
            if t > 0
        ]
        if len({t for _, t in pairs}) < 2:
            continue
        found, truth = (normalized([pair[k] for pair in pairs]) for k in (0, 1))
        errors = sorted(abs(a - b) for a, b in zip(found, truth, strict=True))
        kept = errors[: len(errors) - len(errors) // 5]
        losses.append(sum(kept) / (2 * len(errors)))
    return sum(losses) / len(losses) if losses else 0.0


def test_disparities_worked_by_hand():
    """Truth 1 to 5: median 3, scale 6 / 5. Found 1, 2, 3, 4, 10: median 3, scale 11 / 5.

    Normalized truth: -5/3, -5/6, 0, 5/6, 5/3; found: -10/11, -5/11, 0, 5/11, 35/11. The largest of
    the errors, the last one's, is left out.
    """
    found = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0], dtype=torch.float64)
    truth = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]], dtype=torch.float64)
    value = scale_and_shift_invariant(-found.log()[None, None, None], truth)
    errors = (5 / 3 - 10 / 11) + 2 * (5 / 6 - 5 / 11)
    assert value.item() == pytest.approx(errors / 10)


def test_disparities_beside_a_naive_loop():
    prediction, target = case()
    value = scale_and_shift_invariant(prediction, target)
    assert value.item() == pytest.approx(naive_disparities(prediction, target), rel=1e-12)
    # Without a second disparity an image doesn't count.
    target[1] = (target[1] > 0) * 2.0
    value = scale_and_shift_invariant(prediction, target)
    assert value.item() == pytest.approx(naive_disparities(prediction, target), rel=1e-12)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: scale_and_shift_invariant(x, target), (prediction,))


def test_disparities_up_to_a_factor_and_an_offset():
    prediction, target = case()
    one = scale_and_shift_invariant(prediction, target)
    factor, offset = (
        torch.tensor(x, dtype=torch.float64)[:, None, None] for x in ([0.1, 3, 40], [0.5, 7, 0.1])
    )
    moved = torch.where(target > 0, target * factor + offset, 0)
    torch.testing.assert_close(scale_and_shift_invariant(prediction, moved), one)
    perfect = -torch.where(target > 0, target * factor + offset, 1).log()[:, None]
    assert scale_and_shift_invariant(perfect, target).item() < 1e-12
    upside_down = scale_and_shift_invariant(-perfect, target)
    assert upside_down.item() > one.item()


def test_disparities_without_any():
    prediction, target = case()
    prediction.requires_grad_()
    value = scale_and_shift_invariant(prediction, torch.zeros_like(target))
    value.backward()
    assert value.item() == 0 and torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_disparities_of_any_size():
    """Factors, however large, of truth and prediction; and what float32 can't hold as such."""
    prediction, target = (x.float() for x in case())
    one = scale_and_shift_invariant(prediction, target)
    for scale, shift in ((1e-9, 0.0), (1.0, 80.0), (1.0, -90.0)):
        moved = prediction.clone().add_(shift).requires_grad_()
        value = scale_and_shift_invariant(moved, target * scale)
        value.backward()
        assert value.item() == pytest.approx(one.item(), rel=1e-3)
        assert moved.grad.norm() > 1e-3
    flat = torch.zeros(3, 1, 5, 6, requires_grad=True)
    value = scale_and_shift_invariant(flat, target)
    value.backward()
    assert value.isfinite() and flat.grad.isfinite().all()
