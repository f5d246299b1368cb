"""Channel-wise distillation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.losses import LOSSES, CWDLoss, LossContext, TapShape, cwd

CONTEXT = LossContext()


def maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_worked_by_hand():
    """Teacher (1/2, 1/2), student (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln 2/3, times T^2 = 4."""
    teacher = torch.tensor([[[[7.0, 7.0]]]])
    student = 2 * torch.tensor([[[[1.0, 3.0]]]]).log()
    expected = 4 * (0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert cwd(student, teacher, temperature=2).item() == pytest.approx(expected)
    # A second channel that agrees halves it: N * C is the divisor. So does a second image.
    both = torch.cat([student, teacher], dim=1), torch.cat([teacher, teacher], dim=1)
    assert cwd(*both, temperature=2).item() == pytest.approx(expected / 2)
    both = torch.cat([student, teacher]), torch.cat([teacher, teacher])
    assert cwd(*both, temperature=2).item() == pytest.approx(expected / 2)


def naive(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    images, channels, height, width = teacher.shape
    total = 0.0
    for n in range(images):
        for c in range(channels):
            s = [math.exp(v / temperature) for v in student[n, c].flatten().tolist()]
            t = [math.exp(v / temperature) for v in teacher[n, c].flatten().tolist()]
            for i in range(height * width):
                p, q = t[i] / sum(t), s[i] / sum(s)
                total += p * math.log(p / q)
    return temperature**2 * total / (images * channels)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_like_a_loop(temperature: float):
    student, teacher = maps(2, 3, 4, 5), 3 * maps(2, 3, 4, 5, seed=1)
    value = cwd(student, teacher, temperature=temperature)
    assert value.item() == pytest.approx(naive(student, teacher, temperature), rel=1e-12)


def test_published_settings():
    loss = CWDLoss(3, 3)
    student, teacher = maps(1, 3, 2, 2), maps(1, 3, 2, 2, seed=1)
    assert loss(student, teacher, context=CONTEXT)["cwd"] == cwd(student, teacher, temperature=4)
    assert CWDLoss.TERMS == {"cwd": 3.0}
    assert LOSSES.get("cwd") is CWDLoss


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    scale=st.floats(0.1, 20),
    temperature=st.floats(0.5, 8),
)
def test_properties(seed: int, shape: tuple[int, int, int, int], scale: float, temperature: float):
    student, teacher = scale * maps(*shape, seed=seed), scale * maps(*shape, seed=seed + 1)
    loss = cwd(student, teacher, temperature=temperature)
    assert loss >= -1e-12
    assert cwd(teacher, teacher, temperature=temperature).abs() < 1e-12
    # A constant for each channel of each image is no matter.
    shift = maps(shape[0], shape[1], 1, 1, seed=seed + 2)
    torch.testing.assert_close(cwd(student + shift, teacher, temperature=temperature), loss)
    # Nor is the order of the positions.
    flipped = cwd(student.flip(2, 3), teacher.flip(2, 3), temperature=temperature)
    torch.testing.assert_close(flipped, loss)
    # Channels and images are averaged.
    doubled = cwd(student.repeat(2, 3, 1, 1), teacher.repeat(2, 3, 1, 1), temperature=temperature)
    torch.testing.assert_close(doubled, loss)


def test_far_apart_is_finite():
    """The published log of a softmax is minus infinity here."""
    student = torch.tensor([[[[0.0, 4000.0]]]], requires_grad=True)
    value = cwd(student, torch.tensor([[[[4000.0, 0.0]]]]))
    value.backward()
    assert value.item() == pytest.approx(16 * 1000)
    torch.testing.assert_close(student.grad, torch.tensor([[[[-4.0, 4.0]]]]))


def test_one_pixel():
    student = maps(1, 3, 1, 1).requires_grad_()
    value = cwd(student, maps(1, 3, 1, 1, seed=1))
    value.backward()
    assert value == 0 and not student.grad.any()


def test_gradients():
    student, teacher = maps(2, 3, 2, 3).requires_grad_(), maps(2, 3, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: cwd(s, teacher), student)
    cwd(student, teacher).backward()
    assert student.grad.any() and teacher.grad is None


def test_align():
    student, teacher = maps(2, 3, 4, 4, dtype=torch.float32), maps(2, 5, 8, 8, dtype=torch.float32)
    loss = CWDLoss.from_taps(TapShape(3, 4, 4), TapShape(5, 8, 8), temperature=2.0)
    assert {name: tuple(p.shape) for name, p in loss.named_parameters()} == {
        "align.weight": (5, 3, 1, 1)
    }
    value = loss(student, teacher, context=CONTEXT)["cwd"]
    weight = loss.align.weight[:, :, 0, 0]
    aligned = torch.einsum("dc,nchw->ndhw", weight, student)
    torch.testing.assert_close(value, cwd(aligned, teacher, temperature=2.0))
    value.backward()
    assert loss.align.weight.grad.any()
    assert not list(CWDLoss.from_taps(TapShape(5, 4, 4), TapShape(5, 8, 8)).parameters())


def test_precision():
    """float32 within autocast and for half inputs, up to the inputs' own rounding."""
    student, teacher = maps(2, 3, 4, 4).bfloat16(), maps(2, 3, 4, 4, seed=1).bfloat16()
    expected = cwd(student.float(), teacher.float())
    assert torch.equal(cwd(student, teacher), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cwd(student.float(), teacher), expected)
        assert CWDLoss(3, 5)(student.float(), maps(2, 5, 4, 4), context=CONTEXT)["cwd"].isfinite()
    assert CWDLoss(3, 5)(student, maps(2, 5, 4, 4).half(), context=CONTEXT)["cwd"].isfinite()
    assert cwd(student.double(), teacher.double()).dtype == torch.float64


def test_refusals():
    with pytest.raises(ValueError, match="temperature must be above 0, and finite; got 0"):
        CWDLoss.check_settings(temperature=0)
    with pytest.raises(ValueError, match="temperature must be above 0, and finite; got nan"):
        cwd(maps(1, 2, 2, 2), maps(1, 2, 2, 2), temperature=math.nan)
    with pytest.raises(ValueError, match=r"student \(1, 3, 2, 2\) and teacher \(1, 4, 2, 2\)"):
        cwd(maps(1, 3, 2, 2), maps(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"a student map \[N, 3, h, w\]; got shape \(1, 4, 2, 2\)"):
        CWDLoss(3, 5)(maps(1, 4, 2, 2), maps(1, 5, 2, 2), context=CONTEXT)
