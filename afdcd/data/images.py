"""Reading images."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import Image

from afdcd.data.labels import DataError
from afdcd.utils.stderr import caught_lines

logger = logging.getLogger(__name__)

# What can't be read is said here, with the file's name. (0 is silent; OpenCV 4 has the function at
# the top.)
getattr(cv2.utils, "logging", cv2).setLogLevel(0)

EXIF_ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
# libjpeg goes on after these, with pixels of its own making.
_DAMAGE = re.compile("Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS")
_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# By EXIF orientation, how a stored picture [H, W, ...] is to be shown.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
# Files that were warned of.
_said: set[str] = set()


def read_image(path: str | Path, window: Sequence[float] | None = None) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] in BGR, turned as its EXIF data say.

    A JPEG file that is damaged inside is read as far as it goes, with a warning.

    Args:
        path: of the file.
        window: (lowest, highest) stored value, which become 0 and 255; for 16-bit images of which
            only a part of the range is used. By default 16 bits are divided by 256.

    Raises:
        DataError: missing, unreadable or truncated.
    """
    image, damage = examine_image(path, window)
    if damage and str(path) not in _said:
        _said.add(str(path))
        logger.warning("%s", damage)
    return image


def examine_image(
    path: str | Path, window: Sequence[float] | None = None
) -> tuple[np.ndarray, str]:
    """As `read_image`, but with what is to be said of a damaged file, or nothing.

    Raises:
        DataError: see `read_image`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no image at {path}")
    content = path.read_bytes()
    flags = cv2.IMREAD_COLOR if window is None else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image, complaints = _decode(content, flags)
    except cv2.error as error:
        raise DataError(f"{path} can't be read as an image: is it damaged?") from error
    if image is None:
        size = len(content)
        raise DataError(
            f"{path} ({size} bytes) can't be read as an image: is it truncated, "
            "or of a kind that OpenCV doesn't know? Then save it as PNG"
        )
    damage = (
        f"{path} is damaged: a part of the picture is wrong ({'; '.join(complaints)}). Get the "
        "file anew, or look at it and save it again"
        if complaints
        else ""
    )
    if window is None:
        return image, damage
    low, high = window
    scaled = (image.astype(np.float32) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), damage


def _decode(content: bytes, flags: int) -> tuple[np.ndarray | None, list[str]]:
    """The pixels, or None, and the decoder's complaints; the same with all OpenCV from 4.10 on."""
    data = np.frombuffer(content, dtype=np.uint8)
    if content.startswith(_START):
        # OpenCV 4 fills what is missing with grey.
        if not _is_whole_jpeg(content):
            return None, []
        with caught_lines(_DAMAGE) as complaints:
            image = cv2.imdecode(data, flags)
        return image, complaints
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        # OpenCV 4 doesn't know their EXIF data.
        stored = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        return (None if stored is None else _turned(stored, content)), []
    return cv2.imdecode(data, flags) if data.size else None, []


def _turned(stored: np.ndarray, content: bytes) -> np.ndarray:
    """The picture of a file's content as its EXIF data say."""
    try:
        turn = _TURNS.get(_orientation(io.BytesIO(content)))
    except Exception:  # Pillow's decoders raise many kinds; the picture was read
        return stored
    return stored if turn is None else np.ascontiguousarray(turn(stored))


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether a JPEG file's first picture has an end.

    Thumbnails, which have ends of their own, lie before its scan.
    """
    place = len(_START)
    while place + 4 <= len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        if kind == _SCAN:
            return content.rfind(_END) > place
        if kind == 0xFF:  # padding
            place += 1
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def exif_orientation(path: str | Path) -> int:
    """How an image's EXIF data say that it is to be shown: 1 to 8; 1 where they don't.

    Raises:
        DataError: it can't be read.
    """
    try:
        with open(path, "rb") as file:
            return _orientation(file)
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{path} can't be read as an image: {error}") from error


def _orientation(file: IO[bytes]) -> int:
    with Image.open(file) as image:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))


def shown_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, from the file's header.

    Raises:
        DataError: missing or no image.
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in SIDEWAYS
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError as error:
        raise DataError(f"no file at {path}") from error
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{path} can't be read as an image: {error}") from error


def turned_hint(path: str | Path, image: tuple[int, int], target: tuple[int, int]) -> str:
    """Ends an error about sizes that differ: that EXIF data turn the image, if this is why.

    Args:
        path: of the image.
        image, target: height and width of the image, as it is read, and of its label map.
    """
    if image != target[::-1] or image == target or exif_orientation(path) not in SIDEWAYS:
        return ""
    return (
        f": the photo is turned by its EXIF data (orientation {exif_orientation(path)}), the label "
        "map isn't. Turn the label map in the same way, or take the orientation out of the photo "
        "(exiftool -Orientation= FILE)"
    )
