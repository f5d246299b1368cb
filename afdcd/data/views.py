"""Augmented views of training images that several runs share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# The second word of the seeds: see `afdcd.data.stream`, which has 0 and 1.
_CHOICE, _VIEW = 2, 3


@dataclass(frozen=True)
class ViewPlan:
    """Every training image has ``count`` augmented views; a sample shows one of them.

    Attributes:
        seed: of the views, which don't depend on a run's own seed.
        count: views of an image.
    """

    seed: int
    count: int

    def rng(self, image: int, view: int) -> np.random.Generator:
        """The random numbers of a view's augmentation.

        Args:
            image: number of the image among the training records.
            view: from 0 on.
        """
        return np.random.default_rng((self.seed, _VIEW, image, view))

    def choice(self, run_seed: int, number: int) -> int:
        """The view that a run's sample shows, a function of the run's seed and its number."""
        return int(np.random.default_rng((run_seed, _CHOICE, number)).integers(self.count))


def spread_views(images: int, wanted: int) -> Iterator[tuple[int, int]]:
    """(image, view) of as many views as are wanted, evenly spread over the images.

    Args:
        images: number of training images.
        wanted: views in all; of the first images the second view, and so on, where there are fewer
            images.
    """
    for number in range(wanted):
        if images >= wanted:
            yield number * images // wanted, 0
        else:
            yield number % images, number // images
