"""Image files as label maps: formats that change values, and what Pillow makes of few bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# Formats that (may) change values, as Pillow calls them.
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF", "HEIC", "DDS", "BLP")
# TIFF files may hold JPEG, too.
LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")


def lossy_problem(image: Image.Image, path: str | Path) -> str:
    """That a label map is stored in a format that changes its values; empty where it isn't.

    Args:
        image: the opened file; its content says what it is, its name doesn't matter.
        path: of the file.
    """
    stored = image.format or ""
    compression = image.info.get("compression")
    if stored == "TIFF" and compression in LOSSY_COMPRESSIONS:
        stored = f"TIFF with {compression} compression"
    elif stored == "WEBP" and not _is_lossless_webp(Path(path).read_bytes()):
        stored = "lossy WebP"
    elif stored not in LOSSY_FORMATS:
        return ""
    return (
        f"{path} is stored as {stored}, which changes label values where they meet; a label map "
        "takes a lossless format: export the labels again, as PNG (a file that is only converted "
        "keeps its wrong labels)"
    )


def _is_lossless_webp(content: bytes) -> bool:
    """Whether all pictures in a WebP file are stored without loss."""
    kinds = set(_webp_chunks(content, 12))
    return b"VP8L" in kinds and b"VP8 " not in kinds


def _webp_chunks(content: bytes, start: int) -> Iterator[bytes]:
    """The kinds of a WebP file's chunks, from a position on, with those inside its frames."""
    frame_header = 16
    while start + 8 <= len(content):
        kind, size = (
            content[start : start + 4],
            int.from_bytes(content[start + 4 : start + 8], "little"),
        )
        yield kind
        if kind == b"ANMF":
            yield from _webp_chunks(content[: start + 8 + size], start + 8 + frame_header)
        start += 8 + size + size % 2


def unscaled(values: np.ndarray, largest: int | None) -> np.ndarray:
    """Grey values as they are stored, from those that Pillow has scaled to its range.

    Args:
        values: uint8, or int32 where there are more than 8 bits; of any shape.
        largest: see `largest_value`; None keeps the values.
    """
    if largest is None:
        return values
    full = 255 if values.dtype == np.uint8 else 65535
    return np.rint(values * (largest / full)).astype(values.dtype)


def largest_value(image: Image.Image) -> int | None:
    """The largest value that a grey file can store, where Pillow scales values; else None.

    Grey values of 2 and 4 bits become 0..255 (those of palettes don't), and those of PPM files that
    state a maximum of their own become 0..255 or 0..65535.

    Args:
        image: opened, not yet loaded.
    """
    tiles = getattr(image, "tile", None)
    if image.mode not in ("L", "I") or not tiles:
        return None
    arguments = tiles[0][3]
    words = arguments if isinstance(arguments, tuple) else (arguments,)
    if image.format == "PPM":
        stated = words[1] if len(words) > 1 else None
        return stated if isinstance(stated, int) else None
    raw = str(words[0]) if words else ""
    bits = raw[2:3] if raw.startswith("L;") else ""
    return 2 ** int(bits) - 1 if bits in ("2", "4") else None
