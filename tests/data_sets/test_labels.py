"""Reading label maps and images, and refusing what is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afdcd.data import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.images import read_image
from afdcd.data.labels import image_size


def test_mapping_worked_by_hand():
    label_map = LabelMap(num_classes=2, mapping={7: 0, 9: 1}, ignored=frozenset({0, 255}))
    stored = np.array([[7, 9], [0, 255]], dtype=np.uint8)
    assert label_map.apply(stored, "x").tolist() == [[0, 1], [IGNORE, IGNORE]]


def test_undefined_values_are_named():
    with pytest.raises(DataError, match=r"x\.png .* 3, 200 \(first at row 1, column 0; 2 pixels\)"):
        LabelMap(num_classes=2).apply(np.array([[0, 1], [3, 200]], dtype=np.uint8), "x.png")


@given(st.lists(st.integers(0, 70000), min_size=1, max_size=20))
def test_never_a_silent_wrong_label(values: list[int]):
    label_map = LabelMap(num_classes=5)
    stored = np.array([values], dtype=np.int32)
    if all(value < 5 or value == 255 for value in values):
        assert label_map.apply(stored, "x").tolist() == [values]
    else:
        with pytest.raises(DataError):
            label_map.apply(stored, "x")


@pytest.mark.parametrize("largest", [65536, 70000, 2**31 - 1])
def test_32_bit_values(tmp_path, largest: int):
    """Without a table of all values below them."""
    label_map = LabelMap(num_classes=2, mapping={0: 0, largest: 1}, ignored=frozenset({7}))
    path = tmp_path / "labels.tif"
    Image.fromarray(np.array([[0, largest, 7]], np.int32)).save(path)
    assert read_labels(path, label_map).tolist() == [[0, 1, IGNORE]]
    assert label_map.apply(np.array([[0, 7]], np.uint8), "x").tolist() == [[0, IGNORE]]
    for value in (1, largest - 1):
        with pytest.raises(DataError, match="doesn't define"):
            label_map.apply(np.array([[0, value]], np.int32), "x")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_integer_formats(tmp_path, dtype):
    path = tmp_path / "labels.tif"
    Image.fromarray(np.array([[0, 3 if dtype is np.uint8 else 300]], dtype)).save(path)
    label_map = LabelMap(num_classes=2, mapping={0: 0, 300: 1, 3: 1})
    assert read_labels(path, label_map).tolist() == [[0, 1]]


def test_palette_images_give_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "labels.png")
    assert read_labels(tmp_path / "labels.png", LabelMap(2)).tolist() == [[0, 1]]


def test_colour_pictures_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "labels.png")
    with pytest.raises(DataError, match="mode RGB, but a label map has one channel"):
        read_labels(tmp_path / "labels.png", LabelMap(2))


def test_missing_truncated_and_no_images(tmp_path):
    path = tmp_path / "image.png"
    for read in (read_image, image_size, lambda p: read_labels(p, LabelMap(2))):
        with pytest.raises(DataError, match=r"no .*image\.png"):
            read(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            read_labels(path, LabelMap(2))
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match="can't be read as an image"):
        read_image(path)
    with pytest.raises(DataError, match="can't be read as an image"):
        image_size(path)


@given(st.binary(max_size=200))
def test_fuzzed_files_give_data_errors(tmp_path_factory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    for read in (read_image, lambda p: read_labels(p, LabelMap(2))):
        with pytest.raises(DataError):
            read(path)
