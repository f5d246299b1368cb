"""A check and its rows: each figure with its limit, or why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from afdcd.benchmark.machine import wait
from afdcd.benchmark.report import table

# Characters of an error or a note in a table.
LONGEST_NOTE = 300


class Figure(NamedTuple):
    """What was measured.

    Attributes:
        value: passes where it is at most ``limit``; one that isn't a number fails.
        limit: in the same unit.
        note: on what basis, where the name doesn't say it.
    """

    value: float
    limit: float
    note: str = ""


class Skipped(Exception):
    """A check can't be made here; says why."""


class Check(NamedTuple):
    """A name, and a function that returns figures by the name of their part.

    The function raises `Skipped` where it can't measure, and any other error where something is
    wrong.
    """

    name: str
    measure: Callable[[], Mapping[str, Figure]]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: of the check and the part.
        figure, limit: None where the check was skipped or broke off.
        passed: None where it was skipped.
        seconds: of the whole check, all its parts together.
        note: on what basis, why it was skipped, or the first line of the error.
    """

    name: str
    figure: float | None
    limit: float | None
    passed: bool | None
    seconds: float
    note: str = ""

    @property
    def verdict(self) -> str:
        """``passed``, ``FAILED`` or ``skipped``."""
        return {True: "passed", False: "FAILED", None: "skipped"}[self.passed]


def rows_of(check: Check, device: str) -> list[Row]:
    """Make a check. Whatever error it raises becomes a failed row; the next check can be made.

    Args:
        check: to be made.
        device: whose work is waited for, so that an error in it is this check's.
    """
    start = time.perf_counter()

    def broken(passed: bool | None, note: str) -> list[Row]:
        return [Row(check.name, None, None, passed, time.perf_counter() - start, note)]

    try:
        found = check.measure()
        wait(device)
    except Skipped as reason:
        return broken(None, str(reason))
    except Exception as error:
        return broken(False, error_line(error))
    seconds = time.perf_counter() - start
    return [
        Row(f"{check.name}: {part}", value, limit, value <= limit, seconds, note)
        for part, (value, limit, note) in found.items()
    ]


def error_line(error: Exception) -> str:
    """An error's kind and the first line of what it says; with the last one, where that is a title.

    The output of a failed process, for example, stands below such a title.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[-1]}"
    return f"{type(error).__name__}: {text}"[:LONGEST_NOTE]


def rows_text(rows: Sequence[Row]) -> str:
    """All rows as a table, and the names of those that failed."""
    cells = [
        [
            row.name,
            "-" if row.figure is None else f"{row.figure:.3g}",
            "-" if row.limit is None else f"{row.limit:.3g}",
            row.verdict,
            f"{row.seconds:.1f}",
            row.note,
        ]
        for row in rows
    ]
    failed = [row.name for row in rows if row.passed is False]
    skipped = sum(row.passed is None for row in rows)
    last = f"{len(rows) - len(failed) - skipped} passed, {len(failed)} failed, {skipped} skipped"
    if failed:
        last += "\nFailed:\n" + "\n".join(f"  {name}" for name in failed)
    headers = ["check", "figure", "limit", "", "seconds", "note"]
    return f"{table(cells, headers)}\n\n{last}"
