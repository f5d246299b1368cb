"""What libraries write to the error stream, past Python."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO

_STDERR = 2
_lock = threading.Lock()


@contextmanager
def caught_lines(pattern: re.Pattern[str]) -> Iterator[list[str]]:
    """Keep lines of the process's error stream that match ``pattern`` from being shown.

    They are in the list that is given, once the block is left; all other lines go on their way
    then. One thread at a time; where the stream is closed, nothing is caught.
    """
    caught: list[str] = []
    with _lock:
        try:
            shown = os.dup(_STDERR)
        except OSError:
            yield caught
            return
        file = _own_file(os.getpid())
        try:
            os.dup2(file.fileno(), _STDERR)
            yield caught
        finally:
            os.dup2(shown, _STDERR)
            try:
                _sort(file, pattern, caught, shown)
            finally:
                os.close(shown)


def _sort(file: IO[bytes], pattern: re.Pattern[str], caught: list[str], shown: int) -> None:
    """Read what a file has got and empty it: lines that match are caught, the others shown."""
    if not os.fstat(file.fileno()).st_size:
        return
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    file.seek(0)
    file.truncate()
    for line in lines:
        text = line.decode(errors="replace").strip()
        if pattern.search(text):
            caught.append(text)
        else:
            os.write(shown, line)


@lru_cache(maxsize=1)
def _own_file(process: int) -> IO[bytes]:
    """A file that isn't shared with the process's parent."""
    return tempfile.TemporaryFile(buffering=0)
