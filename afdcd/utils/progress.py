"""How far something long is: a bar on a terminal, elsewhere a line in the log each minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
T = TypeVar("T")
_silent = False
# Seconds between two lines in the log.
PERIOD = 60.0


def silence(silent: bool = True) -> None:
    """Show no bars in this process, or show them again."""
    global _silent
    _silent = silent


def shows_bars() -> bool:
    """Whether somebody looks: standard error is a terminal, and bars aren't silenced."""
    return sys.stderr.isatty() and not _silent


def progress(items: Iterable[T], title: str, *, total: int | None = None) -> Iterator[T]:
    """The items; how many are done is shown, and no more at their end.

    Args:
        items: to go through.
        title: what is done with them.
        total: how many there are, where ``items`` don't know.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    with counted(title, count) as done:
        for item in items:
            yield item
            done()


@contextmanager
def counted(
    title: str, total: int | None, *, unit: str = "it", place: int = 0
) -> Iterator[Callable[[], Any]]:
    """A count that is shown while it grows, and no more at its end.

    Args:
        title: what is done.
        total: how much there is to do, if that is known.
        unit: of the bar.
        place: of the bar, in lines below the first, where processes show one each. The log has that
            of the first.

    Yields:
        to be called whenever one more is done.
    """
    if shows_bars():
        with tqdm(
            desc=title, total=total, unit=unit, position=place, leave=False, dynamic_ncols=True
        ) as bar:
            yield bar.update
        return
    yield _Lines(title, total).done if place == 0 else lambda: None


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def byte_count(count: float) -> str:
    """A number of bytes for readers, such as ``7.7 KiB``."""
    unit = "KiB"
    count /= 1024
    for larger in ("MiB", "GiB", "TiB"):
        if count < 1000:
            break
        count, unit = count / 1024, larger
    return f"{count:.1f} {unit}"


class _Lines:
    """Says in the log, once a `PERIOD`, how many are done, and how long the others will take."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._count = 0
        self._start = self._said = time.monotonic()

    def done(self) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._said < PERIOD:
            return
        self._said = now
        if self._total is None:
            logger.info("%s: %d done", self._title, self._count)
            return
        left = (now - self._start) / self._count * (self._total - self._count)
        logger.info("%s: %d of %d, %s left", self._title, self._count, self._total, clock(left))
