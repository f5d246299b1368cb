"""Values fitted to the types that a config's defaults have, with errors that say what to write."""

from __future__ import annotations

from typing import Any

from afdcd.config.errors import ConfigError

LARGEST = 2**31 - 1
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def fitted(value: Any, default: Any, where: str) -> Any:
    """A value in the type of the key's default.

    YAML reads ``1e-6`` as text and ``1`` as a whole number; neither is a float to the config.
    Whole numbers may be written as floats, and lists as tuples.

    Args:
        value: as a YAML file or the command line has it.
        default: what the key holds so far; None where it says nothing of its type.
        where: the file and the key, for errors.

    Raises:
        ConfigError: it can't be fitted; the message says how to write it.
    """
    if default is None:
        return value
    if value is None:
        raise ConfigError(f"{where} is empty: it takes {_kind(default)}, such as {default!r}")
    if isinstance(default, (list, tuple)):
        return _fitted_list(value, default, where)
    for kind in (bool, int, float, str):
        if isinstance(default, kind):
            return _fitted_scalar(value, kind, where)
    return value


def _kind(default: Any) -> str:
    if isinstance(default, (list, tuple)):
        return "a list"
    return next((text for kind, text in _KINDS.items() if isinstance(default, kind)), "a value")


def _fitted_list(value: Any, default: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} takes a list: write [{value}]; got {value!r}")
    kinds = {type(item) for item in default}
    if len(kinds) != 1:
        return type(default)(value)
    (kind,) = kinds
    if kind not in _KINDS:
        return type(default)(value)
    return type(default)(
        # A whole number among numbers stays one: a crop's size may be a share or pixels.
        item
        if kind is float and type(item) is int
        else _fitted_scalar(item, kind, f"{where}: item {number}")
        for number, item in enumerate(value, 1)
    )


def _fitted_scalar(value: Any, kind: type, where: str) -> Any:
    if kind is str:
        if isinstance(value, str):
            return value
        if isinstance(value, (list, tuple, dict)):
            raise ConfigError(f"{where} takes a text, not a list; got {value!r}")
        raise ConfigError(f"{where} takes a text: quote it ('{value}'); got {value!r}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{where} takes True or False; got {value!r}")
    number = _number(value)
    if kind is float and number is not None:
        return number
    if kind is int and number is not None and number.is_integer():
        if abs(number) > LARGEST:
            raise ConfigError(f"{where} takes whole numbers up to {LARGEST}; got {value!r}")
        return int(number)
    raise ConfigError(f"{where} takes {_KINDS[kind]}; got {value!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
