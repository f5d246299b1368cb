"""Drawing a folder of files on first use, whole or not at all."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from afdcd.data.labels import DataError

logger = logging.getLogger(__name__)


def draw_folder(folder: Path, draw: Callable[[Path], None], what: str) -> None:
    """Let ``draw`` fill a temporary folder, then move it to ``folder``.

    Where several processes do so at once, the first one's files are kept: they are the same.

    Args:
        folder: to be made; its parents too.
        draw: fills the folder that it is given.
        what: the files' title, for errors.

    Raises:
        DataError: the folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
        try:
            draw(unfinished)
            try:
                unfinished.replace(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"can't write the {what} to {folder}: {error}. Set DETECTRON2_DATASETS to a folder "
            "that can be written"
        ) from error


def drawn_images(folder: Path, count: int, draw: Callable[[Path], None], what: str) -> list[Path]:
    """The images of a drawn data set, in order, drawn first if need be.

    Args:
        folder: whose folder ``images`` holds them, as PNG files.
        count: how many there are.
        draw, what: see `draw_folder`.

    Raises:
        DataError: the folder can't be written, or is incomplete.
    """
    if not folder.is_dir():
        logger.info("Drawing %d %s into %s", count, what, folder)
        draw_folder(folder, draw, what)
    images = sorted((folder / "images").glob("*.png"))
    if len(images) != count:
        raise DataError(
            f"{folder} holds {len(images)} scenes instead of {count}: delete it to draw them anew"
        )
    return images


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels (colours as BGR), in the format that the suffix says.

    Raises:
        OSError: that failed.
    """
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"can't write {path}")
