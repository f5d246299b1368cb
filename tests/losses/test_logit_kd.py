"""The logit loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.losses import LogitKDLoss, logit_kd
from afdcd.losses.logit_kd import confident
from afdcd.losses.registry import LossContext


def test_worked_by_hand():
    """Teacher (1/2, 1/2), student (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln 2/3."""
    teacher = torch.zeros(1, 2, 1, 1)
    student = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert logit_kd(student, teacher).item() == pytest.approx(expected)


@given(scale=st.floats(0.1, 5), shift=st.floats(-10, 10), temperature=st.floats(0.5, 8))
def test_properties(scale: float, shift: float, temperature: float):
    generator = torch.Generator().manual_seed(0)
    student = scale * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    loss = logit_kd(student, teacher, temperature=temperature)
    assert loss >= 0
    assert logit_kd(teacher, teacher, temperature=temperature).abs() < 1e-12
    torch.testing.assert_close(logit_kd(student + shift, teacher, temperature=temperature), loss)
    # Pixels are averaged: showing them twice changes nothing.
    torch.testing.assert_close(
        logit_kd(student.repeat(1, 1, 2, 1), teacher.repeat(1, 1, 2, 1), temperature=temperature),
        loss,
    )


def test_gradient_reaches_the_student_only():
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    teacher = torch.randn(1, 3, 2, 2, requires_grad=True)
    LogitKDLoss(2.0)(student, teacher)["logit_kd"].backward()
    # T^2 KL, averaged over four pixels: its slope is T (softmax(s / T) - softmax(t / T)) / 4.
    difference = (student / 2).softmax(1) - (teacher / 2).softmax(1)
    torch.testing.assert_close(student.grad, 2 * difference.detach() / 4)
    assert teacher.grad is None


def test_refusals():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        LogitKDLoss(0)
    with pytest.raises(ValueError, match=r"student \(1, 3, 2, 2\) and teacher \(1, 4, 2, 2\)"):
        logit_kd(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))


def test_only_where_the_teacher_is_sure():
    """Probabilities 0.9, 0.6, 0.8 and 0.5 of the likelier of two classes."""
    sure = torch.tensor([0.9, 0.6, 0.8, 0.5], dtype=torch.float64)
    teacher = torch.stack([sure, 1 - sure]).log().view(1, 2, 2, 2) + 3.0
    student = torch.zeros(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    context = LossContext()
    loss = LogitKDLoss(min_confidence=0.7)(student, teacher, context=context)["logit_kd"]
    by_hand = [math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p) for p in (0.9, 0.8)]
    assert loss.item() == pytest.approx(sum(by_hand) / 2)
    assert context.figures["confident_pixels"] == 0.5
    loss.backward()
    assert (student.grad.abs().sum(1).flatten() > 0).tolist() == [True, False, True, False]


def test_nobody_is_sure():
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    context = LossContext()
    loss = LogitKDLoss(min_confidence=0.9)(student, torch.zeros(1, 3, 2, 2), context=context)
    loss["logit_kd"].backward()
    assert loss["logit_kd"] == 0 and (student.grad == 0).all()
    assert context.figures["confident_pixels"] == 0
    for least in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="probability from 0 to below 1"):
            LogitKDLoss(min_confidence=least)


@given(least=st.floats(0.01, 0.99))
def test_the_counted_pixels_alone(least: float):
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(2, 4, 5, 6, generator=generator).double() for _ in range(2))
    counted = confident(teacher, least)
    assert torch.equal(counted, teacher.softmax(1).amax(1) >= least)
    loss = logit_kd(student, teacher, counted=counted)
    where = counted.flatten()
    columns = [x.movedim(1, 0).flatten(1)[:, where][None, :, None] for x in (student, teacher)]
    expected = logit_kd(*columns) if where.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(loss, expected)
