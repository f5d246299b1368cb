"""Images as they are read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from afdcd.data.images import read_image

ORIENTATION = 0x0112


@pytest.mark.parametrize("window", [None, (0.0, 255.0)])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda x: x), (3, lambda x: np.rot90(x, 2)), (6, lambda x: np.rot90(x, -1))],
)
def test_photos_are_turned_as_their_exif_data_say(tmp_path, orientation, turned, window):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # PNG, which keeps the values; labelling tools turn what cameras write as JPEG alike.
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    expected = turned(pixels)[:, :, ::-1]
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png", window), expected)


def test_a_window_of_16_bits_worked_by_hand(tmp_path):
    stored = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "slice.png")
    image = read_image(tmp_path / "slice.png", (1000, 3000))
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]  # 127.5 is rounded to even
    assert read_image(tmp_path / "slice.png")[0, :, 0].tolist() == [0, 3, 7, 11, 255]
