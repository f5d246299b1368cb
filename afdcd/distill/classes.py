"""Classes of two models matched by name, so that logits compare what both of them know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate

from afdcd.utils.problems import Problem, SettingsError, nearest_hint

_KEY = "MODEL.DISTILLER.TEACHER.CLASS_MAP"
# A softmax over one class says nothing.
_FEWEST = 2


def plain_name(name: str) -> str:
    """A class's name as it is compared: without case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_-]+", "", name).casefold()


@dataclass(frozen=True)
class ClassMatching:
    """Which channels of two models' logits are of the same class.

    Attributes:
        student, teacher: names of all classes, in the channels' order.
        pairs: (student's channel, teacher's channel) of each class that both have, in the
            student's order.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def student_channels(self) -> tuple[int, ...]:
        """The student's channels that have a partner, in their order."""
        return tuple(one for one, _ in self.pairs)

    @property
    def teacher_channels(self) -> tuple[int, ...]:
        """The partners of `student_channels`."""
        return tuple(other for _, other in self.pairs)

    @property
    def is_identity(self) -> bool:
        """Whether both have the same classes in the same order."""
        every = tuple(range(len(self.student)))
        alike = len(self.teacher) == len(self.student)
        return alike and self.student_channels == every == self.teacher_channels

    @property
    def alone_in_student(self) -> list[str]:
        """The student's classes that the teacher doesn't have."""
        matched = set(self.student_channels)
        return [name for k, name in enumerate(self.student) if k not in matched]

    @property
    def alone_in_teacher(self) -> list[str]:
        """The teacher's classes that the student doesn't have."""
        matched = set(self.teacher_channels)
        return [name for k, name in enumerate(self.teacher) if k not in matched]

    @property
    def remarks(self) -> list[str]:
        """What is left out, in a sentence for each side that has something."""
        return [
            f"{len(names)} of {whose} {len(every)} classes are not compared, since {other} has no "
            f"class of their name: {', '.join(names)}"
            for names, every, whose, other in (
                (self.alone_in_student, self.student, "the student's", "the teacher"),
                (self.alone_in_teacher, self.teacher, "the teacher's", "the student"),
            )
            if names
        ]

    def table(self) -> str:
        """The pairs, a line each, and what is left out."""
        rows = [(i, self.student[i], k, self.teacher[k]) for i, k in self.pairs]
        headers = ("", "student's class", "", "teacher's class")
        return "\n".join([tabulate(rows, headers=headers), *self.remarks])


def match_classes(
    student: Sequence[str], teacher: Sequence[str], table: Sequence[tuple[str, str | None]] = ()
) -> ClassMatching:
    """Match classes by their names; case, spaces, underscores and hyphens don't count.

    Args:
        student, teacher: names of the classes, in the channels' order.
        table: (teacher's name, student's name) of classes whose names differ; (teacher's name,
            None) of one that has no partner whatever its name.

    Raises:
        SettingsError: a name of the table that doesn't exist, several classes for one, or fewer
            than two matches; lists all of them.
    """
    if tuple(student) == tuple(teacher) and not table:  # even where names occur twice
        return ClassMatching(
            tuple(student), tuple(teacher), tuple((k, k) for k in range(len(student)))
        )
    problems = _table_problems(student, teacher, table)
    wanted = {plain_name(theirs): mine for theirs, mine in table}
    by_name: dict[str, list[int]] = {}
    for channel, name in enumerate(teacher):
        mine = wanted.get(plain_name(name), name)
        if mine is not None:
            by_name.setdefault(plain_name(mine), []).append(channel)
    pairs = []
    for channel, name in enumerate(student):
        partners = by_name.get(plain_name(name), [])
        same = [other for other in student if plain_name(other) == plain_name(name)]
        if partners and (len(partners) > 1 or len(same) > 1):
            of_teacher = ", ".join(f"{k} {teacher[k]!r}" for k in partners)
            problems.append(
                f"the student's class {name!r} ({len(same)} of that name) has the teacher's "
                f"classes {of_teacher}: one takes one. {_KEY} {{teacher's name: student's name, or "
                "null for none}} or other CLASSES say which"
            )
        elif partners:
            pairs.append((channel, partners[0]))
    if not problems and len(pairs) < _FEWEST:
        problems.append(
            f"of the student's classes {_listed(student)} and the teacher's {_listed(teacher)}, "
            f"{len(pairs)} have the same name, and logits are compared over at least {_FEWEST}: "
            f"name the partners in {_KEY} {{teacher's name: student's name}}, or distil features "
            "alone"
        )
    if problems:
        unique = dict.fromkeys(problems)
        raise SettingsError([Problem(text, "classes") for text in unique])
    return ClassMatching(tuple(student), tuple(teacher), tuple(pairs))


def _table_problems(
    student: Sequence[str], teacher: Sequence[str], table: Sequence[tuple[str, str | None]]
) -> list[str]:
    sides = (
        ("the teacher has", teacher, [theirs for theirs, _ in table]),
        ("the student has", student, [mine for _, mine in table if mine is not None]),
    )
    return [
        f"{_KEY}: {whose} no class {name!r}; {nearest_hint(name, known)}"
        for whose, known, names in sides
        for name in names
        if plain_name(name) not in {plain_name(other) for other in known}
    ]


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"({', '.join(names[:most])}{more})"


def select_channels(maps: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """Some channels of maps [N, K, H, W], in the order given: [N, len(channels), H, W].

    Without any, the maps as they are.
    """
    return maps[:, list(channels)] if channels else maps
