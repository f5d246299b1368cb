"""Paired differences, worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdcd.study import paired_difference


def test_three_seeds():
    found = paired_difference({1: 10.0, 2: 20.0, 3: 30.0, 9: 0.0}, {3: 33.0, 1: 11.0, 2: 22.0})
    assert found is not None
    assert found.seeds == (1, 2, 3) and found.mean == pytest.approx(2.0)
    assert found.error == pytest.approx(1 / math.sqrt(3))  # deviation 1
    assert found.p == 2 / 8  # all gain: only all signs or none are as far


def test_signs_are_counted():
    # Sums of +-1 +-2 +-3 that are 4 or further: 6, 4, and their negatives. Seen: -1 + 2 + 3 = 4.
    found = paired_difference({1: 1.0, 2: 0.0, 3: 0.0}, {1: 0.0, 2: 2.0, 3: 3.0})
    assert found is not None and found.p == 4 / 8


def test_no_effect_is_chance():
    found = paired_difference({1: 5.0, 2: 7.0}, {1: 5.0, 2: 7.0})
    assert found is not None and (found.mean, found.error, found.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("second", [{}, {1: 2.0}, {2: 3.0, 3: 1.0}])
def test_fewer_than_two_common_seeds(second):
    assert paired_difference({1: 1.0, 4: 2.0}, second) is None


def test_rounding_does_not_decide():
    """0.1 + 0.2 - 0.3 isn't quite 0 in floating point, but no sum of signs is nearer to 0."""
    found = paired_difference(dict.fromkeys(range(3), 0.0), {0: 0.1, 1: 0.2, 2: -0.3})
    assert found is not None and found.p == 1.0
    # 61.4 - 61.1 is not quite 0.3 either. Of the eight sums +-0.3 +-0.3 +-1, six reach 1.
    found = paired_difference({1: 61.1, 2: 0.3, 3: 0.0}, {1: 61.4, 2: 0.0, 3: 1.0})
    assert found is not None and found.p == 6 / 8


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=7))
def test_every_choice_of_signs_is_tried(values):
    found = paired_difference(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)))
    sums = [
        sum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    as_far = sum(abs(total) >= abs(sum(values)) for total in sums)
    assert found is not None and found.p == as_far / len(sums)


def test_many_seeds_are_drawn():
    exact, count = 17, 25
    rng = np.random.default_rng(1)
    base = dict.fromkeys(range(count), 0.0)
    other = {seed: float(value) for seed, value in enumerate(rng.normal(0.3, 1, count))}
    exactly = paired_difference(base, {k: v for k, v in other.items() if k < exact})
    drawn = paired_difference(base, other)
    assert exactly is not None and drawn is not None
    # For so many, nearly what a normal distribution says.
    for found in (exactly, drawn):
        values = np.array([other[seed] for seed in found.seeds])
        z = abs(values.sum()) / math.sqrt((values**2).sum())
        assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert paired_difference(base, other) == drawn


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8))
def test_swapping_the_ways_turns_the_difference(values):
    ones = dict(enumerate(values))
    zeros = dict.fromkeys(ones, 0.0)
    forward, backward = paired_difference(zeros, ones), paired_difference(ones, zeros)
    assert forward is not None and backward is not None
    assert forward.mean == -backward.mean
    assert forward.p == backward.p >= 2 / 2 ** len(values)
