"""Images as they are read."""

from __future__ import annotations

import io
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from afdcd.data import DataError
from afdcd.data.images import examine_image, exif_orientation, read_image
from afdcd.data.targets import size_problem
from afdcd.utils.stderr import caught_lines

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


FORMATS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(tmp_path, kind, orientation):
    """As Pillow turns them, whatever OpenCV's version knows."""
    blocks = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "photo"
    stored = Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), np.uint8)))
    stored.save(path, kind, exif=exif, **FORMATS[kind])
    assert exif_orientation(path) == orientation
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))[:, :, ::-1].astype(int)
    found = read_image(path)
    assert found.shape == expected.shape and found.flags.c_contiguous
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


def photo(size: tuple[int, int] = (96, 128), **options) -> bytes:
    """A JPEG file of a noisy picture."""
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_truncated_photos_are_refused(tmp_path_factory, capfd, progressive, share):
    """Though they hold a thumbnail that has an end; in silence but for that."""
    whole = photo(progressive=progressive, comment=photo((8, 8)))
    assert whole.count(b"\xff\xd9") == 2
    path = tmp_path_factory.getbasetemp() / "truncated.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape == (96, 128, 3)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="can't be read as an image: is it truncated"):
        read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused_in_silence(tmp_path, capfd, kind):
    path = tmp_path / "truncated"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(
        path, kind
    )
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.95):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match="can't be read as an image"):
            read_image(path)
    assert "OpenCV" not in capfd.readouterr().err


def test_what_follows_a_photo_is_no_matter(tmp_path):
    """As cameras append, and padding between segments."""
    whole = photo()
    expected = None
    for content in (whole, whole + b"\0" * 99, whole[:2] + b"\xff" * 3 + whole[2:]):
        (tmp_path / "a.jpg").write_bytes(content)
        found = read_image(tmp_path / "a.jpg")
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)


def damaged(whole: bytes) -> bytes:
    """Without a piece in the middle of the pixels."""
    middle = len(whole) * 2 // 3
    return whole[:middle] + whole[middle + 500 :]


def test_damaged_photos_are_named(tmp_path, caplog, capfd):
    path = tmp_path / "damaged.jpg"
    path.write_bytes(damaged(photo()))
    _, damage = examine_image(path)
    assert str(path) in damage and "Corrupt JPEG data" in damage and "Get the file anew" in damage
    assert read_image(path).shape == (96, 128, 3)
    read_image(path)
    assert [record.getMessage() for record in caplog.records] == [damage]  # once
    assert "Corrupt" not in capfd.readouterr().err.replace(damage, "")
    path.write_bytes(photo())
    assert examine_image(path)[1] == ""


def test_damage_is_told_apart_in_threads(tmp_path):
    paths = [tmp_path / f"{index}.jpg" for index in range(40)]
    for index, path in enumerate(paths):
        path.write_bytes(damaged(photo()) if index % 7 == 0 else photo())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: bool(examine_image(path)[1]), paths))
    assert found == [index % 7 == 0 for index in range(40)]


def test_other_lines_of_the_error_stream_go_on_their_way(capfd):
    with caught_lines(re.compile("mine")) as caught:
        os.write(2, b"another's\nmine, too\nno end")
    assert caught == ["mine, too"]
    assert capfd.readouterr().err == "another's\nno end"


def test_turned_photos_whose_label_maps_are_not(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    record = {"file_name": str(tmp_path / "a.jpg"), "sem_seg_file_name": "a.png"}
    image = read_image(tmp_path / "a.jpg")
    assert size_problem(record, image, np.zeros((8, 6))) == ""
    text = size_problem(record, image, np.zeros((6, 8)))
    assert "is 8x6 but its label map a.png is 6x8: the photo is turned by its EXIF data" in text
    assert "(orientation 6)" in text and "Turn the label map in the same way" in text
    assert "EXIF" not in size_problem(record, image, np.zeros((6, 9)))
    Image.new("RGB", (6, 8)).save(tmp_path / "a.jpg")
    assert "EXIF" not in size_problem(record, read_image(tmp_path / "a.jpg"), np.zeros((6, 8)))


def test_a_window_of_16_bits_worked_by_hand(tmp_path):
    stored = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "slice.png")
    image = read_image(tmp_path / "slice.png", (1000, 3000))
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]  # 127.5 is rounded to even
    assert read_image(tmp_path / "slice.png")[0, :, 0].tolist() == [0, 3, 7, 11, 255]
