"""What is wrong with a config."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(ValueError):
    """A config can't be read, or says what can't be."""


class ConfigKeyError(ConfigError):
    """A config sets a key that doesn't exist."""

    def __init__(self, key: str, near: Sequence[str], source: str) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"{source}: there is no key {key}{hint}")
        self.key = key
