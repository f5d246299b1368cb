"""Principal components of a teacher's map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afdcd.distill.components import ComponentFit, PrincipalComponents, rotation
from afdcd.losses import AfDCDLoss
from afdcd.losses.registry import TapShape


def maps(count: int, channels: int, seed: int = 0) -> list[torch.Tensor]:
    """Correlated maps with a mean, of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator)
    mix = mix * torch.linspace(3, 0.1, channels)
    return [
        torch.einsum("dc,nchw->ndhw", mix, torch.randn(1, channels, 3 + n, 4, generator=generator))
        + torch.arange(channels)[None, :, None, None]
        for n in range(count)
    ]


def fitted(features: list[torch.Tensor], dims: int) -> PrincipalComponents:
    fit = ComponentFit()
    for item in features:
        fit.add(item)
    module = PrincipalComponents(features[0].shape[1], dims).double()
    module.set(fit)
    return module


def test_by_hand():
    """Four positions on the line y = x: the first component holds all of the variance."""
    points = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [6.0, 6.0]])
    module = fitted([points.T[None, :, :, None]], 1)
    got = module(points.T[None, :, :, None]).flatten()
    # Mean 3; distances from it along the line: sqrt(2) times -2, -1, 0, 3.
    expected = math.sqrt(2) * torch.tensor([-2.0, -1.0, 0.0, 3.0], dtype=torch.float64)
    assert torch.allclose(got.abs(), expected.abs(), atol=1e-6)
    assert torch.allclose(got * got[-1].sign(), expected, atol=1e-6)
    assert float(module.kept) == pytest.approx(1.0)


def test_streaming_is_the_covariance_of_all_positions():
    features = maps(5, 6)
    rows = np.concatenate([x[0].reshape(6, -1).T.double().numpy() for x in features])
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    module = fitted(features, 2)
    plane = vectors[:, -2:] @ vectors[:, -2:].T  # the projection on the first two
    weight = module.weight.numpy()
    np.testing.assert_allclose(weight.T @ weight, plane, atol=1e-5)
    assert float(module.kept) == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-6)
    centred = module(features[0]).double().numpy()
    mean = np.einsum("dc,chw->dhw", weight, (features[0][0] - rows.mean(0)[:, None, None]).numpy())
    np.testing.assert_allclose(centred[0], mean, atol=1e-5)


def test_the_mean_is_exact_where_it_is_large():
    """A mean of 1e4 beside a deviation of 1: sums of squares in float32 would lose it."""
    generator = torch.Generator().manual_seed(0)
    features = [1e4 + torch.randn(1, 3, 20, 20, generator=generator) for _ in range(3)]
    module = fitted(features, 3)
    whole = torch.cat([module(x.double()) for x in features])
    assert whole.mean((0, 2, 3)).abs().max() < 1e-3
    assert float(whole.var((0, 2, 3)).sum()) == pytest.approx(3.0, rel=0.1)


@given(channels=st.integers(2, 8), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_all_components_keep_every_distance(channels: int, seed: int):
    features = maps(2, channels, seed)
    module = fitted(features, channels)
    rows = features[1][0].reshape(channels, -1).T.double()
    compact = module(features[1].double())[0].reshape(channels, -1).T
    torch.testing.assert_close(
        torch.cdist(compact, compact), torch.cdist(rows, rows), rtol=1e-4, atol=1e-3
    )
    assert float(module.kept) == pytest.approx(1.0)


def test_the_rotation_spreads_the_variance_over_the_channels():
    features = maps(8, 32)
    module = fitted(features, 16)
    compact = torch.cat([module(x)[0].reshape(16, -1) for x in features], 1)
    variances = compact.var(1)
    plain = (rotation(16).T @ compact).var(1)  # largest first, as eigenvalues are
    assert plain.std() > 2 * variances.std()
    torch.testing.assert_close(plain.sum(), variances.sum())


def test_a_rotation_is_one_and_always_the_same():
    turn = rotation(5)
    torch.testing.assert_close(turn @ turn.T, torch.eye(5, dtype=torch.float64))
    assert torch.equal(turn, rotation(5))


def test_the_same_maps_give_the_same_components():
    one, other = (fitted(maps(3, 6), 4) for _ in range(2))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_errors():
    with pytest.raises(ValueError, match="from 1 to 8"):
        PrincipalComponents(8, 9)
    with pytest.raises(RuntimeError, match="weren't fitted"):
        PrincipalComponents(8, 2)(torch.zeros(1, 8, 2, 2))
    fit = ComponentFit()
    fit.add(torch.full((1, 2, 2, 2), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        fit.components(1)
    constant = ComponentFit()
    constant.add(torch.ones(1, 2, 2, 2))
    assert constant.components(1)[2] == 1.0  # nothing varies: nothing is lost


@pytest.mark.parametrize("reduction", ["published", "mean"])
def test_settings_keep_their_meaning_at_another_width(reduction: str):
    """A map whose channels are two copies of half as many says the same in both widths."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(2, 8, 8, 8, generator=generator, dtype=torch.float64)
    projected = torch.randn(2, 8, 8, 8, generator=generator, dtype=torch.float64)
    options = {"groups": 4, "pool": 0, "reduction": reduction}
    whole = AfDCDLoss(4, 16, **options)
    compact = AfDCDLoss.from_taps(TapShape(4, 8, 8), TapShape(8, 8, 8, whole=16), **options)

    def double(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=1) / math.sqrt(2)

    def terms(loss: AfDCDLoss, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        loss.align, loss.projector = torch.nn.Identity(), torch.nn.Sequential(torch.nn.Identity())
        loss.student_channels = x.shape[1]
        loss.projector.register_parameter("p", torch.nn.Parameter(torch.zeros(1).double()))
        masked = torch.ones(2, 1, 8, 8)
        loss.settings.__dict__["masked_conv"] = "never"
        found = loss(x, y, masked)
        return [found["reconstruction"], found["contrast"]]

    for one, other in zip(
        terms(whole, double(projected), double(half)), terms(compact, projected, half), strict=True
    ):
        torch.testing.assert_close(one, other)
