"""Scores by class, over the runs of a way."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

# Of a class's figure, perhaps behind that of its task.
_CLASS = re.compile(r"(?:\w+\.)?IoU-(.+)")
# An IoU below this, in percent, is 0: the class isn't learnt.
ZERO = 0.5

# IoU in percent by class; classes that never occur are left out.
Classes = Mapping[str, float]


def classes_of(figures: Mapping[str, Mapping[str, Any]], data_set: str | None) -> Classes:
    """A run's IoU by class.

    Args:
        figures: by data set and name, ``IoU-road`` or with the task, ``sem_seg.IoU-road``.
        data_set: whose; None where there is one with such figures only.

    Returns:
        nothing where there are none, or where it isn't clear of which data set.
    """
    found = {
        name: {
            match[1]: float(value)
            for key, value in values.items()
            if (match := _CLASS.fullmatch(key)) and value is not None
        }
        for name, values in figures.items()
        if data_set in (None, name)
    }
    chosen = [values for values in found.values() if values]
    return chosen[0] if len(chosen) == 1 else {}


def class_table(ways: Mapping[str, Sequence[Classes]]) -> str:
    """Mean IoU of each class over the runs of each way that have it; empty without classes."""
    names = dict.fromkeys(name for runs in ways.values() for run in runs for name in run)
    if not names:
        return ""
    rows = [
        [name, *(_mean(run.get(name) for run in runs) for runs in ways.values())] for name in names
    ]
    return tabulate(
        rows,
        headers=["mean IoU by class", *ways],
        disable_numparse=True,
        colalign=("left",) + ("right",) * len(ways),
    )


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.2f}" if known else "-"


def at_zero(ways: Mapping[str, Sequence[Classes]]) -> list[str]:
    """What is said of the classes whose IoU is below `ZERO` in some runs of a way, or in all."""
    lines = []
    for way, runs in ways.items():
        always = []
        for name in dict.fromkeys(name for run in runs for name in run):
            known = [run[name] for run in runs if name in run]
            zeros = sum(value < ZERO for value in known)
            if zeros == len(known):
                always.append(name)
            elif zeros:
                lines.append(
                    f"{name} is at 0 in {zeros} of {len(known)} runs of {way}: its mean IoU "
                    "moves by chance"
                )
        if always:
            verb = "is" if len(always) == 1 else "are"
            lines.append(f"{', '.join(always)} {verb} at 0 in every run of {way}")
    return lines
