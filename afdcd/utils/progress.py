"""Progress bars: on a terminal alone, and only where nobody asked for silence."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_silent = False


def silence(silent: bool = True) -> None:
    """Show no bars in this process, or show them again."""
    global _silent
    _silent = silent


def shows_bars() -> bool:
    """Whether somebody looks: standard error is a terminal, and bars aren't silenced."""
    return sys.stderr.isatty() and not _silent


def progress(items: Iterable[T], title: str, *, total: int | None = None) -> Iterator[T]:
    """The items, with a bar that goes away at their end.

    Args:
        items: to go through.
        title: of the bar.
        total: how many there are, where ``items`` don't know.
    """
    hidden = not shows_bars()
    yield from tqdm(items, desc=title, total=total, leave=False, dynamic_ncols=True, disable=hidden)
