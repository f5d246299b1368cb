"""The one rule for paths that users write: in configs, descriptions and on the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expanded(text: str) -> str:
    """A path with ``~``, ``$VAR`` and ``${VAR}`` replaced, as a shell does it.

    Addresses (``https://...``) stay as they are.

    Raises:
        ValueError: a variable isn't set, or there is no such user.
    """
    if "://" in text:
        return text

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(f"{text!r}: the environment variable {name} isn't set")
        return os.environ[name]

    replaced = _VARIABLE.sub(value, text)
    if not replaced.startswith("~"):
        return replaced
    home = os.path.expanduser(replaced)  # noqa: PTH111  (it says nothing about unknown users)
    if home.startswith("~"):
        raise ValueError(f"{text!r}: there is no home folder of {Path(home).parts[0]}")
    return home


def path_flag(text: str) -> Path:
    """A command line's path; for argparse, which reports the ValueError."""
    return Path(expanded(text))


def config_flag(text: str) -> Path:
    """A command line's config file or folder; for argparse.

    ``configs/...`` that isn't there is looked for among the configs that come with the package, so
    that they can be named outside of a checkout.
    """
    path = path_flag(text)
    if path.exists() or path.parts[:1] != ("configs",):
        return path
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):  # installed; in a checkout
        if (folder / path).exists():
            return folder / path
    return path
