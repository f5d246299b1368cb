"""How a teacher's maps are stored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afdcd.distill.encoding import Encoding
from afdcd.distill.targets import Target
from afdcd.utils.problems import SettingsError

FEATURES, LOGITS = Target("backbone.res5", 4), Target("sem_seg_head.predictor")


def roundtrip(encoding: Encoding, target: Target, x: torch.Tensor) -> torch.Tensor:
    return encoding.decode(target, len(x), encoding.encode(target, x))


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_int8_is_within_half_a_step_of_each_channel(scale: float, seed: int):
    x = scale * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed))
    x[1] *= 100
    error = (roundtrip(Encoding("int8"), FEATURES, x) - x).abs().amax((1, 2))
    assert (error <= 1.0001 * x.abs().amax((1, 2)) / 127 / 2).all()


def test_a_channel_of_zeros_stays_one():
    x = torch.zeros(4, 2, 2)
    assert torch.equal(roundtrip(Encoding("int8"), FEATURES, x), x)


def test_float16():
    x = torch.randn(4, 5, 6)
    assert torch.equal(roundtrip(Encoding("float16"), FEATURES, x), x.half().float())
    assert roundtrip(Encoding("float16"), FEATURES, torch.full((1, 1, 1), 1e9)).isfinite().all()


def test_logits_are_in_float16_whatever_the_maps_are():
    x = torch.randn(7, 5, 6)
    assert torch.equal(roundtrip(Encoding("int8"), LOGITS, x), x.half().float())


def test_top_classes_keep_the_likeliest_and_share_the_rest():
    x = torch.randn(9, 3, 4) * 3
    encoding = Encoding("int8", top_classes=3)
    stored = encoding.encode(LOGITS, x)
    shapes = [tuple(value.shape) for value in stored.values()]
    assert shapes == [(4, 3, 4), (3, 3, 4)]
    exact, got = x.softmax(0), encoding.decode(LOGITS, 9, stored).softmax(0)
    top, classes = exact.topk(3, 0)
    torch.testing.assert_close(got.gather(0, classes), top, rtol=5e-3, atol=1e-4)
    rest = (1 - top.sum(0)) / 6
    others = torch.ones_like(exact, dtype=torch.bool).scatter(0, classes, False)
    torch.testing.assert_close(got[others], rest.expand(9, 3, 4)[others], rtol=5e-3, atol=1e-4)


def test_a_certain_position_has_no_infinite_logit():
    x = torch.zeros(9, 1, 1)
    x[2] = 100.0
    assert roundtrip(Encoding(top_classes=2), LOGITS, x).isfinite().all()


@pytest.mark.parametrize("encoding", [Encoding("int8"), Encoding("float16"), Encoding("int8", 3)])
@pytest.mark.parametrize("target", [FEATURES, LOGITS])
def test_bytes(encoding: Encoding, target: Target):
    stored = encoding.encode(target, torch.randn(9, 3, 4))
    total = sum(value.nbytes for value in stored.values())
    assert encoding.bytes_of(target, 9, 3, 4) == total


def test_errors():
    with pytest.raises(SettingsError, match="int8, float16; got 'float8'"):
        Encoding("float8")
    with pytest.raises(SettingsError, match="TOP_CLASSES"):
        Encoding(top_classes=-1)
