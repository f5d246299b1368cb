"""Overlays and label maps as they are written, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from afdcd.data import Dataset, DatasetSpec
from afdcd.data.cityscapes import ID_MAP, IDS
from afdcd.data.labels import LabelMap, rgb_code
from afdcd.tasks import PredictionStyle, SemanticSegmentation
from afdcd.tasks.semantic_segmentation.drawing import stored_labels
from afdcd.utils.problems import SetupError


def test_overlay():
    spec = DatasetSpec("purple", ("all",), ((100, 0, 200),), lambda root: ([], LabelMap(1)))
    task = SemanticSegmentation(Dataset(spec, [], LabelMap(1)))
    image = np.full((1, 1, 3), 40, np.uint8)
    assert task.overlay(image, np.zeros((1, 1), int), 0.25).tolist() == [[[80, 30, 55]]]


def test_values_for_the_cityscapes_server():
    labels = np.array([[*range(19)]])
    stored = stored_labels(labels, 19, ID_MAP)
    assert stored.tolist() == [list(IDS)] and stored.dtype == np.uint8
    np.testing.assert_array_equal(ID_MAP.apply(stored, "x"), labels)


def test_colours():
    colors = LabelMap(2, {rgb_code(1, 2, 3): 0, rgb_code(250, 0, 9): 1}, frozenset(), "rgb")
    stored = stored_labels(np.array([[0, 1]]), 2, colors)
    assert stored.tolist() == [[[3, 2, 1], [9, 0, 250]]] and stored.dtype == np.uint8


def test_values_of_16_bits_and_more():
    wide = LabelMap(2, {40000: 1, 7: 0}, frozenset({0}))
    stored = stored_labels(np.array([[1, 0]]), 2, wide)
    assert stored.tolist() == [[40000, 7]] and stored.dtype == np.uint16
    wider = LabelMap(2, {70000: 1, 7: 0}, frozenset({0}))
    with pytest.raises(SetupError, match="up to 70000 don't fit"):
        stored_labels(np.array([[1, 0]]), 2, wider)


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_more_classes_than_a_byte_holds(tmp_path, classes, dtype):
    labels = np.array([[0, classes - 1]])
    assert stored_labels(labels, classes, None).dtype == dtype
    image = np.zeros((1, 2, 3), np.uint8)
    task = SemanticSegmentation.without_data(classes)
    task.write(tmp_path / "below", "a", image, labels, PredictionStyle())
    written = np.array(Image.open(tmp_path / "below/a_labels.png"))
    np.testing.assert_array_equal(written, labels)
    assert np.array(Image.open(tmp_path / "below/a_overlay.png")).shape == (1, 2, 3)
