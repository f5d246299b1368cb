"""Merging ``MODEL.DISTILLER.LOSSES``, whose labels and settings are the user's to choose.

Which loss has which settings is checked where losses are known: see `afdcd.distill.settings`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

PATH = ("MODEL", "DISTILLER", "LOSSES")
KEY = ".".join(PATH)
FORM = "labels with a loss each, such as {afdcd: {NAME: afdcd, CONTRAST_WEIGHT: 0.005}}"
# On a command line, as in YAML.
NULL = ("null", "~", "")


def take_losses(content: dict[str, Any]) -> Any:
    """Take the losses out of nested keys and values; None where there are none.

    Raises:
        ValueError: there is something else in their place.
    """
    node: Any = content
    for name in PATH[:-1]:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or PATH[-1] not in node:
        return None
    losses = node.pop(PATH[-1])
    if not isinstance(losses, Mapping):
        raise ValueError(f"{KEY} takes {FORM}; got {losses!r}")
    if wrong := [label for label in losses if not isinstance(label, str)]:
        raise ValueError(f"{KEY}: a label is a word, or a number in quotes; got {wrong[0]!r}")
    return losses


def merge_losses(cfg: CfgNode, losses: Mapping[str, Any], *, switching_off: bool = False) -> None:
    """Merge label by label, and key by key, into the losses of ``cfg``.

    A label keeps its place; a new one comes last. Null for a label switches its loss off, and
    drops its settings.

    Args:
        cfg: changed.
        losses: by label.
        switching_off: whether they are meant to change what is there: a label set to null must be
            there, and there must be a label.

    Raises:
        ValueError: a label holds neither keys nor null, or isn't there to be switched off; or none
            is given, though they are meant to change what is there.
    """
    node = cfg
    for name in PATH:
        node = node[name]
    if switching_off and not losses and node:
        off = " ".join(f"{KEY}.{label} null" for label in node)
        raise ValueError(
            f"{KEY} {{}} would change nothing, since losses are merged by label: switch each off "
            f"({off})"
        )
    for label, given in losses.items():
        values = None if isinstance(given, str) and given in NULL else given
        if values is None:
            if switching_off and label not in node:
                near = difflib.get_close_matches(str(label), map(str, node), n=3, cutoff=0.5)
                there = ", ".join(near or map(str, node)) or "none"
                hint = f"did you mean {there}?" if near else f"the labels are: {there}"
                raise ValueError(f"{KEY} has no loss {label} that could be switched off; {hint}")
            node[label] = None
        elif isinstance(values, Mapping):
            below = node.get(label) or {}
            node[label] = type(cfg)({**below, **values}, new_allowed=True)
        else:
            raise ValueError(
                f"{KEY}.{label} takes a loss's keys, such as {{NAME: {label}, WEIGHT: 1.0}}, or "
                f"null for no loss; got {values!r}"
            )
