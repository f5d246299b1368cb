"""Folders to write into."""

from __future__ import annotations

import tempfile
from pathlib import Path


def folder_problems(folder: Path, key: str = "OUTPUT_DIR") -> list[str]:
    """Whether the folder that a key or option names can be made and written; it isn't made."""
    folder = folder.absolute()
    try:
        nearest = nearest_there(folder)
        if not nearest.is_dir():
            return [f"{key} {folder} can't be written: {nearest} is a file"]
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".write_test_"):
            pass
    except OSError as error:
        return [f"{key} {folder} can't be written: {error.strerror or error}"]
    return []


def nearest_there(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
