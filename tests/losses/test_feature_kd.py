"""Feature distillation: normalised MSE and log-sum."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.losses import LOSSES, FeatureKDLoss, LossContext, TapShape, feature_kd

CONTEXT = LossContext()
FORMS = ("normalised_mse", "log_sum")


def maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def channel(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_normalised_mse_worked_by_hand():
    """With a^2 = 3/2: (-a, 0, a) and (a, -a, 0), so (4 + 1 + 1) * 3/2 over 3 elements."""
    student, teacher = channel(30.0, 10.0, 20.0), channel(1.0, 2.0, 3.0)
    assert feature_kd(student, teacher).item() == pytest.approx(3, rel=1e-4)
    # A second channel that agrees halves it; so does a second image. Sizes don't matter.
    both = torch.cat([student, teacher], dim=1), torch.cat([teacher, teacher], dim=1)
    assert feature_kd(*both).item() == pytest.approx(3 / 2, rel=1e-4)
    both = torch.cat([student, teacher]), torch.cat([teacher, teacher])
    assert feature_kd(*both).item() == pytest.approx(3 / 2, rel=1e-4)
    tall = student.repeat(1, 1, 4, 1), teacher.repeat(1, 1, 4, 1)
    assert feature_kd(*tall).item() == pytest.approx(3, rel=1e-4)


def test_log_sum_worked_by_hand():
    """(1, -1) and (-1, 1): two differences of 2, to the fourth; not divided."""
    student, teacher = channel(50.0, 10.0), channel(1.0, 3.0)
    value = feature_kd(student, teacher, form="log_sum")
    assert value.item() == pytest.approx(math.log(2 * 2**4), rel=1e-3)
    squared = feature_kd(student, teacher, form="log_sum", alpha=2)
    assert squared.item() == pytest.approx(math.log(2 * 2**2), rel=1e-3)
    # The statistics are the batch's: one pixel in each of two images is the same two values.
    student, teacher = student.view(2, 1, 1, 1), teacher.view(2, 1, 1, 1)
    assert feature_kd(student, teacher, form="log_sum") == value
    assert feature_kd(student, teacher) == 0


def normal(values: list[float], epsilon: float) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + epsilon) for v in values]


def naive(student: torch.Tensor, teacher: torch.Tensor, form: str, alpha: float) -> float:
    images, channels, height, width = teacher.shape
    total = 0.0
    for c in range(channels):
        if form == "normalised_mse":
            rows = [(student[n, c], teacher[n, c]) for n in range(images)]
        else:
            rows = [(student[:, c], teacher[:, c])]
        for s, t in rows:
            epsilon = 1e-5 if form == "normalised_mse" else 1e-4
            pairs = zip(
                normal(s.flatten().tolist(), epsilon),
                normal(t.flatten().tolist(), epsilon),
                strict=True,
            )
            total += sum(abs(a - b) ** (2 if form == "normalised_mse" else alpha) for a, b in pairs)
    if form == "normalised_mse":
        return total / (images * channels * height * width)
    return math.log(total + 1e-5)


@pytest.mark.parametrize(("form", "alpha"), [(FORMS[0], 4), (FORMS[1], 4), (FORMS[1], 1.5)])
def test_like_a_loop(form: str, alpha: float):
    student, teacher = maps(2, 3, 4, 5), 3 + 0.2 * maps(2, 3, 4, 5, seed=1)
    value = feature_kd(student, teacher, form=form, alpha=alpha)
    assert value.item() == pytest.approx(naive(student, teacher, form, alpha), rel=1e-12)


def test_published_settings():
    student, teacher = maps(2, 3, 4, 4), maps(2, 3, 4, 4, seed=1)
    value = feature_kd(student, teacher, form="log_sum")
    assert value == feature_kd(student, teacher, form="log_sum", alpha=4)
    assert FeatureKDLoss.TERMS == {"feature_kd": 1.0}
    assert LOSSES.get("feature_kd") is FeatureKDLoss


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(3, 5), st.integers(3, 5)),
)
def test_properties(seed: int, shape: tuple[int, int, int, int]):
    student, teacher = 10 * maps(*shape, seed=seed), 10 * maps(*shape, seed=seed + 1)
    loss = feature_kd(student, teacher)
    assert 0 <= loss <= 4
    assert feature_kd(teacher, teacher) == 0
    # It is 2 (1 - r), averaged over the channels of all images.
    centred = [x - x.mean((2, 3), keepdim=True) for x in (student, teacher)]
    correlation = torch.cosine_similarity(centred[0].flatten(2), centred[1].flatten(2), dim=2)
    torch.testing.assert_close(loss, 2 * (1 - correlation.mean()), rtol=1e-4, atol=1e-4)
    # Positive factors and constants of each channel are no matter, up to the variance's epsilon:
    # here of each image, in the log-sum form of the whole batch.
    for form, images in (("normalised_mse", shape[0]), ("log_sum", 1)):
        factor = 1 + maps(images, shape[1], 1, 1, seed=seed + 2).abs()
        shift = maps(images, shape[1], 1, 1, seed=seed + 3)
        torch.testing.assert_close(
            feature_kd(factor * student + shift, teacher, form=form),
            feature_kd(student, teacher, form=form),
            rtol=1e-3,
            atol=1e-3,
        )


def test_the_size_shifts_log_sum_but_not_its_gradient():
    student, teacher = maps(2, 3, 4, 4).requires_grad_(), maps(2, 3, 4, 4, seed=1)
    once = feature_kd(student, teacher, form="log_sum")
    (gradient,) = torch.autograd.grad(once, student)
    twice = feature_kd(student.repeat(1, 1, 2, 1), teacher.repeat(1, 1, 2, 1), form="log_sum")
    (same,) = torch.autograd.grad(twice, student)
    assert (twice - once).item() == pytest.approx(math.log(2), rel=1e-6)
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_one_pixel_and_channels_without_variation(form: str):
    for teacher in (maps(1, 3, 1, 1, seed=1), maps(1, 3, 4, 4, seed=1)):
        student = torch.ones_like(teacher, requires_grad=True)
        value = feature_kd(student, teacher, form=form)
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()
    equal = maps(2, 3, 4, 4).requires_grad_()
    value = feature_kd(equal, equal.detach().clone(), form=form)
    value.backward()
    assert value.item() == pytest.approx(0 if form == "normalised_mse" else math.log(1e-5))
    assert not equal.grad.any()


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form: str):
    student, teacher = maps(2, 3, 2, 3).requires_grad_(), maps(2, 3, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: feature_kd(s, teacher, form=form), student)
    feature_kd(student, teacher, form=form).backward()
    assert student.grad.any() and teacher.grad is None


@pytest.mark.parametrize("channels", [3, 5])
def test_projector(channels: int):
    """There even where the channels agree; a step along its gradient brings the maps closer."""
    student = maps(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    teacher = maps(2, channels, 8, 8, seed=1, dtype=torch.float32)
    loss = FeatureKDLoss.from_taps(TapShape(3, 4, 4), TapShape(channels, 8, 8), form="log_sum")
    assert {name: tuple(p.shape) for name, p in loss.named_parameters()} == {
        "projector.weight": (channels, 3, 1, 1)
    }
    assert not list(loss.buffers())
    value = loss(student, teacher, context=CONTEXT)["feature_kd"]
    projected = torch.einsum("dc,nchw->ndhw", loss.projector.weight[:, :, 0, 0], student)
    torch.testing.assert_close(value, feature_kd(projected, teacher, form="log_sum"))
    value.backward()
    assert student.grad.any()
    with torch.no_grad():
        loss.projector.weight -= 0.01 * loss.projector.weight.grad
    assert loss(student, teacher, context=CONTEXT)["feature_kd"] < value


def test_a_linear_map_away_is_no_distance():
    student = maps(2, 3, 4, 4)
    loss = FeatureKDLoss(3, 5).double()
    teacher = 10 * loss.projector(student).detach() + 7
    assert loss(student, teacher, context=CONTEXT)["feature_kd"] < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_precision(form: str):
    """float32 within autocast and for half inputs, up to the inputs' own rounding."""
    student, teacher = maps(2, 3, 4, 4).bfloat16(), maps(2, 3, 4, 4, seed=1).bfloat16()
    expected = feature_kd(student.float(), teacher.float(), form=form)
    assert torch.equal(feature_kd(student, teacher, form=form), expected)
    loss = FeatureKDLoss(3, 3, form=form)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(feature_kd(student.float(), teacher, form=form), expected)
        assert loss(student, teacher, context=CONTEXT)["feature_kd"].dtype == torch.float32
    assert loss(student, teacher.half(), context=CONTEXT)["feature_kd"].dtype == torch.float32
    assert feature_kd(student.double(), teacher.double(), form=form).dtype == torch.float64
    # Values that float16 can't square.
    large = feature_kd(1e4 * student.half(), teacher, form=form)
    torch.testing.assert_close(large, expected, rtol=1e-2, atol=1e-2)


def test_refusals():
    with pytest.raises(ValueError, match="form must be one of normalised_mse, log_sum; got 'mse'"):
        FeatureKDLoss.check_settings(form="mse")
    with pytest.raises(ValueError, match=r"alpha must be at least 1; got 0.5"):
        FeatureKDLoss.check_settings(alpha=0.5)
    with pytest.raises(ValueError, match=r"student \(1, 3, 2, 2\) and teacher \(1, 4, 2, 2\)"):
        feature_kd(maps(1, 3, 2, 2), maps(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"a student map \[N, 3, h, w\]; got shape \(1, 4, 2, 2\)"):
        FeatureKDLoss(3, 5)(maps(1, 4, 2, 2), maps(1, 5, 2, 2), context=CONTEXT)
