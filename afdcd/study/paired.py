"""Whether two ways of training differ by more than their seeds do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Up to so many pairs every choice of signs is tried, 2 to their number.
EXACT_PAIRS = 20
DRAWS = 1 << 17


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two ways over the seeds that both were run with.

    Attributes:
        seeds: those.
        mean: of second minus first, in the figures' unit.
        error: standard error of the mean: deviation of the differences (divided by n - 1) over the
            root of n.
        p: of a sign-flip test: the share of all choices of signs of the differences whose mean is
            as far from 0 as the one that was seen. If the way made no difference, so large a one
            would come about with at most this probability. The smallest possible is 2 / 2^n.
    """

    seeds: tuple[int, ...]
    mean: float
    error: float
    p: float


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> PairedDifference | None:
    """Compare two ways by what they reached with each seed; None for fewer than two common seeds.

    The test needs no distribution of the figures but that, without an effect, a difference is as
    likely as its negative (R. A. Fisher, The Design of Experiments, 1935, section 21). Beyond
    `EXACT_PAIRS` seeds it draws `DRAWS` choices of signs.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if len(seeds) < 2:
        return None
    differences = np.array([second[seed] - first[seed] for seed in seeds], dtype=np.float64)
    error = float(differences.std(ddof=1)) / len(seeds) ** 0.5
    return PairedDifference(seeds, float(differences.mean()), error, _sign_flip(differences))


def _sign_flip(differences: np.ndarray) -> float:
    seen = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()  # rounding must not decide
    if len(differences) <= EXACT_PAIRS:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float((np.abs(sums) >= seen).mean())
    # A fixed seed: the same figures give the same answer. The seen signs count as one draw.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DRAWS, len(differences)))
    as_far = np.count_nonzero(np.abs(signs @ differences) >= seen)
    return float((as_far + 1) / (DRAWS + 1))
