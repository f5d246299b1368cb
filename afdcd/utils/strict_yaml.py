"""YAML without code, and without keys that hide others."""

from __future__ import annotations

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


def read_strict_yaml(path: Path) -> Any:
    """The content of a YAML file in UTF-8.

    Raises:
        ValueError: it isn't text, isn't YAML, or has a mapping with a key twice; says where.
        OSError: it can't be read.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} isn't valid YAML: {error}") from error
