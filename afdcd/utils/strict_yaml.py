"""YAML without code, and without keys that hide others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if key != "<<" and keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r:.60} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class _AsWritten(_UniqueKeys):
    """Takes for a number only what everyone reads as the same one; all other words are texts.

    YAML 1.1 makes 8 of 010, 90 of 1:30, 1000 of 1_000, and a boolean of no.
    """


_GUESSED = ("int", "float", "bool", "timestamp")
_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in _GUESSED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_AsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), [*"-+0123456789"]
)
_AsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    [*"-+0123456789."],
)


def read_strict_yaml(path: Path, *, as_written: bool = False) -> Any:
    """The content of a YAML file in UTF-8.

    Args:
        path: of the file.
        as_written: whether words such as 010, 1:30, no and 2020-01-01 are texts; by default they
            are what YAML 1.1 takes them for, as in Detectron2's configs.

    Raises:
        ValueError: it isn't text, isn't YAML, or has a mapping with a key twice; says where.
        OSError: it can't be read.
    """
    try:
        return yaml.load(
            path.read_text(encoding="utf-8"), _AsWritten if as_written else _UniqueKeys
        )
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} isn't valid YAML: {error}") from error
