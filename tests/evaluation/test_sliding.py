"""Sliding windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.evaluation import window_logits
from afdcd.evaluation.sliding import window_starts


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_every_pixel(length: int, window: int, stride: int):
    stride = min(stride, window)
    starts = window_starts(length, window, stride)
    covered = {p for s in starts for p in range(s, min(s + window, length))}
    assert covered == set(range(length))
    assert all(s + window <= length for s in starts) or starts == [0]


def test_worked_by_hand():
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    # Each window's logits are its number; pixels under two windows have the mean.
    numbers = iter([1.0, 3.0])
    image = torch.zeros(1, 3, 2, 6)
    logits = window_logits(
        lambda x: torch.full((1, 1, *x.shape[-2:]), next(numbers)),
        image,
        window=(2, 4),
        stride=(2, 2),
    )
    assert logits[0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_pointwise_model_doesnt_notice(height: int, width: int):
    image = torch.randn(1, 3, 7, 11, dtype=torch.float64)
    logits = window_logits(
        lambda x: x * 2 + 1, image, window=(height, width), stride=(1 + height // 2, width)
    )
    torch.testing.assert_close(logits, image * 2 + 1)


def test_settings_are_checked():
    for window, stride in (((0, 4), (1, 1)), ((4, 4), (5, 1)), ((4, 4), (0, 1))):
        with pytest.raises(ValueError, match="stride from 1 to the window"):
            window_logits(lambda x: x, torch.zeros(1, 3, 4, 4), window=window, stride=stride)
