"""What a codebase's naming is, as tables of rules.

A translation gives each entry its name here, or None for one that has no place here by design
(such as an ImageNet classifier). An entry that no rule knows keeps its name, so that it shows up as
unexpected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import torch

NUM = r"(\d+)"
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None]
Entries = dict[str, torch.Tensor]


def as_they_are(entries: Entries) -> Entries:
    """The entries, of a naming whose tensors differ from this package's in names only."""
    return entries


class NameFormat(NamedTuple):
    """A codebase's naming: its title, how to recognise it and how to translate it.

    Attributes:
        title: of the codebase.
        recognises: whether state-dict names are of it.
        rules: patterns and what they become, tried one after the other on the result of the last.
        arrange: joins, splits and reshapes tensors of translated names.
        rules_of: where the translation of a name depends on all of them, makes the rules.
    """

    title: str
    recognises: Callable[[frozenset[str]], bool]
    rules: tuple[Rule, ...] = ()
    arrange: Callable[[Entries], Entries] = as_they_are
    rules_of: Callable[[frozenset[str]], tuple[Rule, ...]] | None = None


def translate(name: str, name_format: NameFormat) -> str | None:
    """The name of an entry here; None for one that has no place here by design."""
    for pattern, replacement in name_format.rules:
        if re.search(pattern, name):
            if replacement is None:
                return None
            name = re.sub(pattern, replacement, name, count=1)
    return name
