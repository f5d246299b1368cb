"""DIST: inter- and intra-class relations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.losses import LOSSES, DISTLoss, LossContext, TapShape, dist

CONTEXT = LossContext()


def maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logits(*pixels: tuple[float, ...]) -> torch.Tensor:
    """[1, K, 1, len(pixels)] with these probabilities."""
    return torch.tensor(pixels, dtype=torch.float64).log().T[None, :, None]


def test_inter_worked_by_hand():
    """Centred times 30: (-4, -1, 5) and (5, -1, -4); r = -39 / 42."""
    inter, intra = dist(logits((0.5, 0.3, 0.2)), logits((0.2, 0.3, 0.5)))
    assert inter.item() == pytest.approx(1 + 39 / 42, rel=1e-6)
    assert intra == 1  # one pixel has no relation to others


def test_both_worked_by_hand():
    """Class 0, centred times 10: (-2, -1, 3) and (3, -1, -2); r = -11 / 14; class 1 the same.

    Two classes are correlated with 1 or -1: 2 for the outer pixels, 0 for the middle one.
    """
    teacher = logits((0.1, 0.9), (0.2, 0.8), (0.6, 0.4))
    student = logits((0.6, 0.4), (0.2, 0.8), (0.1, 0.9))
    inter, intra = dist(student, teacher)
    assert inter.item() == pytest.approx(4 / 3, rel=1e-6)
    assert intra.item() == pytest.approx(1 + 11 / 14, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_like_a_loop(temperature: float):
    student, teacher = maps(2, 3, 2, 4), 2 * maps(2, 3, 2, 4, seed=1)
    q, p = (student / temperature).softmax(1), (teacher / temperature).softmax(1)

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return 1 - torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()

    pixels = [
        distance(q[n, :, y, x], p[n, :, y, x]) for n in range(2) for y in range(2) for x in range(4)
    ]
    classes = [distance(q[:, k], p[:, k]) for k in range(3)]
    inter, intra = dist(student, teacher, temperature=temperature)
    assert inter.item() == pytest.approx(temperature**2 * sum(pixels) / 16, rel=1e-5)
    assert intra.item() == pytest.approx(temperature**2 * sum(classes) / 3, rel=1e-5)


def test_published_settings():
    student, teacher = maps(1, 3, 2, 2), maps(1, 3, 2, 2, seed=1)
    values = DISTLoss()(student, teacher, context=CONTEXT)
    inter, intra = dist(student, teacher, temperature=1)
    assert values == {"inter": inter, "intra": intra}
    assert DISTLoss.TERMS == {"inter": 1.0, "intra": 1.0}
    assert LOSSES.get("dist") is DISTLoss


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 3),
    classes=st.integers(3, 6),
    height=st.integers(2, 4),
    width=st.integers(1, 4),
    temperature=st.floats(0.5, 8),
)
def test_properties(seed: int, n: int, classes: int, height: int, width: int, temperature: float):
    shape = n, classes, height, width
    student, teacher = maps(*shape, seed=seed), maps(*shape, seed=seed + 1)
    inter, intra = dist(student, teacher, temperature=temperature)
    bound = 2 * temperature**2
    assert 0 <= inter <= bound and 0 <= intra <= bound
    # 0 for equal logits, but for the 1e-8 beside the squared norm of each row.
    p = (teacher / temperature).softmax(1)
    for term, dims in zip(
        dist(teacher, teacher, temperature=temperature), [(1,), (0, 2, 3)], strict=True
    ):
        squared_norm = (p - p.mean(dims, keepdim=True)).square().sum(dims)
        epsilon = (1e-8 / (squared_norm + 1e-8)).mean()
        torch.testing.assert_close(term, temperature**2 * epsilon, rtol=1e-4, atol=1e-10)
    # A constant for each pixel leaves the probabilities as they are.
    shifted = dist(student + maps(n, 1, height, width), teacher, temperature=temperature)
    torch.testing.assert_close(shifted, (inter, intra))
    # Pixels and images are one batch of instances, in any order.
    mixed = student.transpose(0, 2).flip(3), teacher.transpose(0, 2).flip(3)
    torch.testing.assert_close(dist(*mixed, temperature=temperature), (inter, intra))


@given(seed=st.integers(0, 1000), classes=st.integers(3, 6))
def test_positive_affine_maps_of_a_row_are_no_matter(seed: int, classes: int):
    shape = 2, classes, 3, 4
    p = maps(*shape, seed=seed).softmax(1)
    teacher = p.log()
    generator = torch.Generator().manual_seed(seed)
    # c * p + (1 - c) * offsets sums to 1 over the classes, as p does.
    by_pixel = 0.1 + 0.8 * torch.rand(2, 1, 3, 4, generator=generator, dtype=p.dtype)
    inter, intra = dist((by_pixel * p + (1 - by_pixel) / classes).log(), teacher)
    assert inter < 1e-3 < 0.01 < intra  # a factor for each pixel is no factor for a class
    by_class = torch.arange(classes, dtype=p.dtype).softmax(0).view(1, classes, 1, 1)
    inter, intra = dist((0.3 * p + 0.7 * by_class).log(), teacher)
    assert intra < 1e-3 < 0.1 < inter  # an offset for each class is none for a pixel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_without_variation(dtype: torch.dtype):
    """0.3 / sum isn't exactly 1 / 11: what is left must not be taken for a relation."""
    uniform = torch.full((2, 11, 7, 9), 0.3, dtype=dtype, requires_grad=True)
    varied = maps(2, 11, 7, 9, dtype=dtype)
    inter, intra = dist(uniform, varied)
    (inter + intra).backward()
    assert inter == 1 and intra == 1 and not uniform.grad.any()
    student = varied.clone().requires_grad_()
    inter, intra = dist(student, uniform)
    (inter + intra).backward()
    assert inter == 1 and intra == 1 and not student.grad.any()


def test_one_pixel():
    student = maps(1, 4, 1, 1).requires_grad_()
    inter, intra = dist(student, maps(1, 4, 1, 1, seed=1))
    assert intra == 1
    intra.backward(retain_graph=True)
    assert not student.grad.any()
    inter.backward()
    assert student.grad.isfinite().all() and student.grad.any()


def test_confident_predictions_are_finite():
    """Probabilities that underflow: classes that are nowhere."""
    student = torch.zeros(2, 4, 3, 3)
    student[:, 0], student[:, 3] = 200.0, -200.0
    student.requires_grad_()
    inter, intra = dist(student, 100 * maps(2, 4, 3, 3, dtype=torch.float32))
    (inter + intra).backward()
    assert inter.isfinite() and intra.isfinite() and student.grad.isfinite().all()


def test_gradients():
    student, teacher = maps(2, 3, 2, 3).requires_grad_(), maps(2, 3, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: dist(s, teacher, temperature=2), student)
    sum(dist(student, teacher)).backward()
    assert student.grad.any() and teacher.grad is None


def test_precision():
    """float32 within autocast and for half inputs, up to the inputs' own rounding."""
    student, teacher = maps(2, 3, 4, 4).bfloat16(), maps(2, 3, 4, 4, seed=1).bfloat16()
    expected = dist(student.float(), teacher.float())
    assert dist(student, teacher) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert dist(student.float(), teacher) == expected
    assert dist(student, teacher)[0].dtype == torch.float32
    assert dist(student.double(), teacher.double())[1].dtype == torch.float64


def test_refusals():
    with pytest.raises(ValueError, match="temperature must be above 0, and finite; got -1"):
        DISTLoss.check_settings(temperature=-1)
    with pytest.raises(ValueError, match=r"student \(1, 3, 2, 2\) and teacher \(2, 3, 2, 2\)"):
        dist(maps(1, 3, 2, 2), maps(2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"at least 2 classes; got shape \(1, 1, 2, 2\)"):
        dist(maps(1, 1, 2, 2), maps(1, 1, 2, 2))


@pytest.mark.parametrize("name", ["logit_kd", "dist"])
def test_channels_that_are_no_classes_are_refused_before_training(name: str):
    kind = LOSSES.get(name)
    assert not list(kind.from_taps(TapShape(2, 4, 4), TapShape(2, 8, 8)).parameters())
    with pytest.raises(ValueError, match="the taps have 1 channel, such as a depth"):
        kind.from_taps(TapShape(1, 4, 4), TapShape(1, 8, 8))
    with pytest.raises(ValueError, match="3 channels of the student with 4 channels of the"):
        kind.from_taps(TapShape(3, 4, 4), TapShape(4, 8, 8))
