"""Crops of resized images against resizing everything."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from afdcd.data.crop_resize import (
    Crop,
    crop_of_resized_image,
    crop_of_resized_labels,
    resized_size,
)


@st.composite
def crops(draw, largest: int):
    size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    steps = st.integers(0, 15).map(lambda k: round(0.5 + k / 10, 10))
    scale = draw(steps | st.floats(0.3, 3.0) | st.sampled_from([0.25, 0.75, 1.25, 1 / 3]))
    full = resized_size(size, scale)
    edges = []
    for n in full:
        first = draw(st.integers(0, max(n - 1, 0)))
        edges += [first, draw(st.integers(min(first + 1, n), n))]
    return size, scale, Crop(*edges), draw(st.integers(0, 99))


def check(size, scale: float, crop: Crop, seed: int, allowed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    labels = rng.integers(0, 256, size, np.uint8)
    rows, columns = slice(crop.top, crop.bottom), slice(crop.left, crop.right)
    if min(resized_size(size, scale)) == 0:
        return
    whole = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    assert whole.shape[:2] == resized_size(size, scale)
    difference = np.abs(
        whole[rows, columns].astype(int) - crop_of_resized_image(image, scale, crop).astype(int)
    )
    assert difference.max(initial=0) <= allowed
    nearest = cv2.resize(labels, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(
        nearest[rows, columns], crop_of_resized_labels(labels, scale, crop)
    )


@settings(deadline=None, max_examples=300)
@given(crops(90))
@example(((1, 2), 1.25, Crop(0, 1, 0, 2), 0))  # OpenCV copies what keeps its size
def test_within_one_grey_level_and_labels_exactly(case):
    check(*case, allowed=1)


@pytest.mark.parametrize("step", range(16))
def test_cityscapes_sizes(step: int):
    scale = round(0.5 + step / 10, 10)
    height, width = resized_size((1024, 2048), scale)
    for top, left in ((0, 0), (height - 512, width - 1024), ((height - 512) // 3, width // 7)):
        left = min(left, width - 1024)
        check((1024, 2048), scale, Crop(top, top + 512, left, left + 1024), step, allowed=1)
