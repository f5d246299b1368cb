"""Reading YAML that users write, with errors that name the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from afdcd.data.labels import DataError
from afdcd.utils.strict_yaml import read_strict_yaml


class DescriptionError(DataError):
    """A data set's description can't be used; the message names the file and the key."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; words such as 010, 1:30 and no are texts.

    Raises:
        DescriptionError: missing, no text or no YAML.
    """
    if not path.is_file():
        raise DescriptionError(f"no data set description at {path.absolute()}")
    try:
        return read_strict_yaml(path, as_written=True)
    except ValueError as error:
        raise DescriptionError(str(error)) from error
    except OSError as error:
        raise DescriptionError(f"{path} can't be read: {error}") from error


class Fields:
    """A mapping of a YAML file whose keys are asked for one by one.

    Args:
        content: what the file holds.
        where: names it in errors, e.g. ``tiles.yaml: labels``.
        known: the keys that may be there.

    Raises:
        DescriptionError: it is no mapping, or has other keys.
    """

    def __init__(self, content: Any, where: str, known: Iterable[str]) -> None:
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise DescriptionError(
                f"{where} must hold KEY: value lines; it holds {_short(content)}"
            )
        known = list(known)
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f" (it takes {', '.join(known)})"
                raise DescriptionError(f"{where}: there is no key {_short(key)}{hint}")
        self.content: dict[str, Any] = content
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def raw(self, key: str) -> Any:
        """The value as it is; None where there is none."""
        return self.content.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A word or path.

        Raises:
            DescriptionError: absent without a default, or no text.
        """
        if key not in self:
            if default is None:
                raise DescriptionError(f"{self.where}: the key {key} is needed")
            return default
        return as_text(self.content[key], f"{self.where}: {key}")

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many numbers.

        Raises:
            DescriptionError: it is something else.
        """
        value = self.content.get(key)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(is_number(v) for v in value)
        ):
            raise DescriptionError(
                f"{self.where}: {key} takes [{count} numbers]; got {_short(value)}"
            )
        return tuple(float(v) for v in value)


def as_text(value: Any, where: str) -> str:
    """A non-empty text without control characters.

    Raises:
        DescriptionError: it is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a split or a folder called 2017
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        quoted = isinstance(value, float)
        hint = f': write "{value}", in quotes, if it is one' if quoted else ""
        raise DescriptionError(f"{where} takes a text; got {_short(value)}{hint}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e300  # neither infinite nor NaN
    )


def as_color(value: Any, where: str) -> tuple[int, int, int]:
    """A colour (red, green, blue): [255, 0, 0], "255 0 0", "255,0,0" or "#ff0000".

    Raises:
        DescriptionError: it is something else.
    """
    parts: Any = value
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("#") and len(text) == 7:
            parts = [text[1:3], text[3:5], text[5:]]
            base = 16
        else:
            parts, base = text.replace(",", " ").split(), 10
        try:
            parts = [int(part, base) for part in parts]
        except ValueError:
            parts = None
    if (
        isinstance(parts, (list, tuple))
        and len(parts) == 3
        and all(isinstance(p, int) and not isinstance(p, bool) and 0 <= p <= 255 for p in parts)
    ):
        return parts[0], parts[1], parts[2]
    raise DescriptionError(
        f'{where} takes a colour, [red, green, blue] in 0..255 or "#rrggbb"; got {_short(value)}'
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
