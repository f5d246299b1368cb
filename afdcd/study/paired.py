"""Whether two ways of training differ by more than their seeds do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The sign-flip test tries all 2^n choices of signs if there are at most this many (n up to 17),
# and draws this many otherwise.
MAX_CHOICES = 1 << 17


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two ways of training over the seeds that both were run with.

    Attributes:
        seeds: the seeds that both were run with, sorted.
        mean: mean of second minus first, in the figures' unit.
        error: standard error of the mean: the differences' standard deviation (divided by n - 1)
            over the square root of n.
        p: p-value of a sign-flip test: the share of all choices of the differences' signs whose sum
            is at least as far from 0 as the one observed. If the way of training made no
            difference, one this large would occur with at most this probability. The smallest
            possible value is 2 / 2^n.
    """

    seeds: tuple[int, ...]
    mean: float
    error: float
    p: float


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> PairedDifference | None:
    """Compare two ways of training by the figures they reached with each seed.

    The test assumes nothing about the distribution of the figures except that, without an effect, a
    difference is as likely as its negative (R. A. Fisher, The Design of Experiments, 1935,
    section 21). It is exact up to 17 seeds; beyond that it draws `MAX_CHOICES` choices of signs,
    the same ones each time.

    Returns:
        the difference, or None if they have fewer than two seeds in common.
    """
    # Imported here because it takes a second.
    from scipy.stats import permutation_test, sem

    seeds = tuple(sorted(first.keys() & second.keys()))
    if len(seeds) < 2:
        return None
    differences = np.array([second[seed] - first[seed] for seed in seeds], dtype=np.float64)
    test = permutation_test(
        (differences,), _sum, permutation_type="samples", n_resamples=MAX_CHOICES, rng=0
    )
    mean, error, p = map(float, (differences.mean(), sem(differences), test.pvalue))
    return PairedDifference(seeds, mean, error, p)


def _sum(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums in which rounding errors don't decide whether two are equal."""
    return values.sum(axis).round(9)
