"""Distillation of predicted values."""

from __future__ import annotations

import pytest
import torch

from afdcd.losses import LOSSES, LossContext, OutputKDLoss, TapShape, output_kd


def test_worked_by_hand():
    """Differences 1, 0, 2 and 5 over four values; doubled to two images, over eight."""
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0.0, 2.0]], [[5.0, 4.0]]]], dtype=torch.float64)
    assert output_kd(student, teacher).item() == 8 / 4
    both = torch.cat([student, teacher]), torch.cat([teacher, teacher])
    assert output_kd(*both).item() == 8 / 8


def test_the_gradient_is_the_students_alone():
    student = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 1, 6, 8, dtype=torch.float64, requires_grad=True)
    loss = OutputKDLoss.from_taps(TapShape(1, 3, 4), TapShape(1, 6, 8))
    value = loss(student, teacher, context=LossContext())["output_kd"]
    value.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    resized = torch.nn.functional.interpolate(student, (6, 8), mode="bilinear")
    assert value.item() == pytest.approx((resized - teacher).abs().mean().item())
    assert LOSSES.get("output_kd") is OutputKDLoss and OutputKDLoss.CHANNELWISE


def test_refusals():
    with pytest.raises(ValueError, match="both must predict the same values"):
        OutputKDLoss.from_taps(TapShape(1, 4, 4), TapShape(2, 4, 4))
    with pytest.raises(ValueError, match="output_kd takes two maps"):
        output_kd(torch.zeros(1, 1, 2, 2), torch.zeros(2, 1, 2, 2))
