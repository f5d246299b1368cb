"""Decoded images and label maps on disk, of which only the rows that a crop needs are read."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from afdcd.data.labels import DataError
from afdcd.data.spec import Record
from afdcd.utils.files import write_atomically

Pair = tuple[np.ndarray, np.ndarray]
# Raised whenever what is stored changes its meaning.
VERSION = 2


class DiskCache:
    """Image and labels of records as uncompressed arrays, mapped into memory.

    An entry belongs to the two files, their sizes and times of change, and to how they were read;
    whatever differs makes another entry. Files are written whole or not at all, so that several
    processes may share a folder.

    Args:
        folder: made if need be.
        settings: how files are read (label map, resizing, channel order), in words.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.settings = settings

    def get(self, record: Record) -> Pair | None:
        """The arrays of a record, read-only, or None where there is no entry."""
        paths = self._paths(record)
        try:
            image, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
        except (OSError, ValueError, EOFError):
            return None  # none yet, or written by a broken disk: made anew
        if image.shape[:2] != labels.shape or image.dtype != np.uint8:
            return None
        return image, labels

    def put(self, record: Record, image: np.ndarray, labels: np.ndarray) -> None:
        """Write an entry.

        Raises:
            DataError: the folder can't be written.
        """
        paths = self._paths(record)
        try:
            for path, array in zip(paths, (image, labels), strict=True):
                write_atomically(path, partial(_save, array))
        except OSError as error:
            raise DataError(
                f"DATALOADER.CACHE_DIR {self.folder} can't be written: {error}"
            ) from error

    def _paths(self, record: Record) -> tuple[Path, Path]:
        words = [str(VERSION), self.settings, str(record.get("window"))]
        for key in sorted(key for key in record if key.endswith("file_name")):
            path = Path(record[key]).absolute()
            try:
                status = path.stat()
            except OSError as error:
                raise DataError(f"no file at {path}") from error
            words += [str(path), str(status.st_size), str(status.st_mtime_ns)]
        name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
        folder = self.folder / name[:2]
        return folder / f"{name}_image.npy", folder / f"{name}_labels.npy"


def _save(array: np.ndarray, file: IO[bytes]) -> None:
    np.save(file, np.ascontiguousarray(array))
