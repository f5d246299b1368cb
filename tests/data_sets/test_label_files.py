"""Label maps of every bit depth, and formats that change values."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from afdcd.data import DataError, LabelMap, read_labels
from afdcd.data.labels import read_stored_labels

GREY, PALETTE = 0, 3


def png(values: np.ndarray, bits: int, kind: int = GREY) -> bytes:
    """A PNG file of ``bits`` bits a pixel, as its specification says; palettes are not grey."""

    def chunk(name: bytes, content: bytes) -> bytes:
        length = struct.pack(">I", len(content))
        return length + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b""
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    colors = bytes((7 * k + c * 50) % 256 for k in range(2**bits) for c in range(3))
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"PLTE", colors)] if kind == PALETTE else []
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("bits", "kind"),
    [*((b, GREY) for b in (1, 2, 4, 8, 16)), *((b, PALETTE) for b in (1, 2, 4, 8))],
)
def test_every_bit_depth_gives_the_stored_values(tmp_path, bits, kind):
    path = tmp_path / "labels.png"
    values = np.arange(2**bits).reshape(-1, min(2**bits, 8) if bits < 16 else 256)
    path.write_bytes(png(values, bits, kind))
    stored = read_stored_labels(path)
    assert stored.dtype == (np.uint8 if bits <= 8 else np.int32)
    np.testing.assert_array_equal(stored, values)


@given(
    bits=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from([GREY, PALETTE]),
    seed=st.integers(0, 99),
    width=st.integers(1, 9),
)
def test_few_bits_at_any_width(tmp_path_factory, bits, kind, seed, width):
    path = tmp_path_factory.getbasetemp() / "few_bits.png"
    values = np.random.default_rng(seed).integers(0, 2**bits, (3, width))
    path.write_bytes(png(values, bits, kind))
    np.testing.assert_array_equal(read_stored_labels(path), values)


@pytest.mark.parametrize("largest", [1, 3, 20, 254, 255, 256, 1000, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_grey_maps_with_a_maximum_of_their_own(tmp_path, largest, plain):
    values = np.unique(np.linspace(0, largest, 16).astype(int))
    body = " ".join(map(str, values)).encode()
    if not plain:
        body = values.astype(">u2" if largest > 255 else "u1").tobytes()
    path = tmp_path / "labels.pgm"
    path.write_bytes(b"P%d\n%d 1\n%d\n" % (2 if plain else 5, len(values), largest) + body)
    assert read_stored_labels(path).tolist() == [values.tolist()]


def test_the_highest_class_of_four_bits_is_learnt(tmp_path):
    """Scaled to 255 it would be ignored."""
    path = tmp_path / "labels.png"
    path.write_bytes(png(np.arange(16)[None], 4))
    assert read_labels(path, LabelMap(16)).tolist() == [list(range(16))]


COLORS = np.kron(np.array([[0, 200], [90, 30]], np.uint8), np.ones((8, 8), np.uint8))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


LOSSY = {
    "JPEG": ("JPEG", {"quality": 100}),
    "JPEG2000": ("JPEG2000", {}),
    "lossy WebP": ("WEBP", {"quality": 100}),
    "TIFF with jpeg compression": ("TIFF", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("encoding", ["index", "rgb"])
def test_lossy_formats_are_refused_whatever_the_name(tmp_path, name, encoding):
    kind, options = LOSSY[name]
    picture = Image.fromarray(COLORS).convert("L" if encoding == "index" else "RGB")
    path = tmp_path / "labels.png"
    path.write_bytes(encoded(picture, kind, **options))
    with pytest.raises(DataError, match=f"stored as {name}, which changes label values.*as PNG"):
        read_stored_labels(path, encoding)


def test_animated_webp_is_looked_into(tmp_path):
    frames = [Image.fromarray(np.roll(COLORS, k)).convert("RGB") for k in range(2)]
    path = tmp_path / "labels.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], quality=50)
    with pytest.raises(DataError, match="lossy WebP"):
        read_stored_labels(path, "rgb")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})],
)
def test_lossless_formats_are_read_whatever_the_name(tmp_path, kind, options):
    path = tmp_path / "labels.jpg"
    path.write_bytes(encoded(Image.fromarray(COLORS).convert("RGB"), kind, **options))
    expected = COLORS.astype(int) * (1 + 256 + 65536)
    np.testing.assert_array_equal(read_stored_labels(path, "rgb"), expected)
