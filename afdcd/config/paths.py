"""Keys of a config that hold paths: ``~`` and ``$VAR`` are replaced in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from afdcd.config.errors import ConfigError
from afdcd.utils.paths import expanded

PATH_KEYS = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.DISTILLER.TEACHER.CONFIG_FILE",
    "MODEL.DISTILLER.TEACHER.WEIGHTS",
    "MODEL.DISTILLER.TEACHER.RECORD.FOLDER",
    "DATALOADER.CACHE_DIR",
)


def expanded_path(text: str, where: str) -> str:
    """`expanded`. Raises ConfigError, which says where the path stands."""
    try:
        return expanded(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def absolute_path(text: str, folder: Path, where: str) -> str:
    """`expanded_path`, looked for in ``folder`` where it is relative."""
    return str((folder / expanded_path(text, where)).resolve())


def expand_paths(content: dict[str, Any], where: str) -> None:
    """Replace ``~`` and ``$VAR`` in the paths of nested keys and values, in place.

    Raises:
        ConfigError: a variable isn't set, or there is no such user.
    """
    for key in PATH_KEYS:
        *parents, last = key.split(".")
        node: Any = content
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get(last), str):
            node[last] = expanded_path(node[last], f"{where}: {key}")
