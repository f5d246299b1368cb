"""Thin, small and near a boundary, on maps small enough to see."""

from __future__ import annotations

import numpy as np

from afdcd.analysis.groups import boundary_bands, region_sizes, thin_pixels


def test_regions_are_connected_ones():
    """Two spots of one class, 4 and 400 pixels of 10000: each is judged alone."""
    labels = np.zeros((100, 100), np.uint8)
    labels[:2, :2] = 1
    labels[50:70, 50:70] = 1
    sizes = region_sizes(labels)
    assert sizes[0, 0] == 0 and sizes[60, 60] == 2 and sizes[99, 0] == 2
    labels[50:70, 60:70] = 0  # 200 pixels: 2 %
    assert region_sizes(labels)[60, 55] == 1


def test_bands_by_distance():
    """30x40: the diagonal is 50, so 1 % is half a pixel, 2 % one and 5 % two and a half."""
    labels = np.zeros((30, 40), np.uint8)
    labels[:, 20:] = 1
    assert boundary_bands(labels)[7, 17:23].tolist() == [3, 2, 0, 0, 2, 3]
    assert (boundary_bands(np.zeros((30, 40), np.uint8)) == 3).all()


def test_bands_of_large_images():
    """300x400: up to 5 pixels, up to 10, up to 25."""
    labels = np.zeros((300, 400), np.uint8)
    labels[:, 200:] = 1
    expected = [0] * 5 + [1] * 5 + [2] * 15 + [3]
    assert boundary_bands(labels)[100, 200:226].tolist() == expected


def test_thin_is_narrower_than_the_square():
    """30x40: a square of 3x3. A bar of 2 is thin, one of 3 isn't, nor is one cut by the border."""
    labels = np.zeros((30, 40), np.uint8)
    labels[:, 5:7] = 1
    labels[:, 15:18] = 2
    labels[:, 39:] = 3
    thin = thin_pixels(labels)
    assert thin[:, 5:7].all() and not thin[:, 15:18].any() and not thin[:, 39:].any()
    assert not thin[:, 20:38].any()
