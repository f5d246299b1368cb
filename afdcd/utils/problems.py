"""Everything that is wrong, collected and reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

INSTALL_DETECTRON2 = (
    "Install Detectron2 by its official instructions "
    "(https://detectron2.readthedocs.io/tutorials/install.html), then repeat the command"
)
# How many problems of one kind are listed.
SHOWN = 5


class SetupError(Exception):
    """The run can't start. Holds every problem found, not just the first.

    Attributes:
        problems: one sentence or more each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            lines = "\n".join(f"  {n}. {text}" for n, text in enumerate(self.problems, 1))
            super().__init__(f"{len(self.problems)} problems:\n{lines}")


def raise_problems(*checks: Callable[[], list[str]] | list[str]) -> None:
    """Raise one SetupError with all problems of all checks, or nothing."""
    found = (text for check in checks for text in (check() if callable(check) else check))
    problems = list(dict.fromkeys(found))
    if problems:
        raise SetupError(problems)


def first_few(problems: Sequence[str], *, of: str = "", what: str = "files") -> list[str]:
    """The first `SHOWN` problems, and how many more there are in the data set named ``of``."""
    if len(problems) <= SHOWN:
        return list(problems)
    more = f"{len(problems) - SHOWN} more {what} like these"
    return [*problems[:SHOWN], f"{of}: {more}" if of else more]


def name_problems(key: str, name: str, known: Iterable[str]) -> list[str]:
    """What is wrong if a name isn't among the known ones, with the nearest of these."""
    known = sorted(known)
    if name in known:
        return []
    return [f"{key}: nothing is called {name!r}; {nearest_hint(name, known)}"]


class SettingsError(ValueError):
    """Settings that can't work. Holds everything that is wrong with them.

    Attributes:
        problems: one sentence or more each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def collect(*checks: Callable[[], object]) -> list[str]:
    """Call all checks, and return the problems of those that raise ValueError."""
    problems: list[str] = []
    for check in checks:
        constructed(check, problems)
    return problems


def nearest_hint(name: str, known: Iterable[str], *, what: str = "") -> str:
    """The end of an error about an unknown name: the nearest names, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"did you mean {what}{', '.join(near)}?"
    return f"there are {what}{', '.join(known)}" if known else "there are none"


class Problem(str):
    """A sentence about what is wrong, with the kind of fault for reports by kind.

    Attributes:
        kind: a word, such as ``learning-rate`` or ``class-order``.
    """

    kind: str

    def __new__(cls, text: str, kind: str = "config") -> Problem:
        problem = super().__new__(cls, text)
        problem.kind = kind
        return problem


def refuse(problems: Iterable[str]) -> None:
    """Raise one SettingsError with all problems, or nothing. For settings' constructors."""
    if found := list(problems):
        raise SettingsError(found)


def constructed(make: Callable[[], T], problems: list[str]) -> T | None:
    """What ``make`` gives; None if it raises ValueError, whose problems are added to the list."""
    try:
        return make()
    except SettingsError as error:
        problems += error.problems
    except ValueError as error:
        problems.append(str(error))
    return None
