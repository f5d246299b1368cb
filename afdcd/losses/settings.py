"""Which settings a loss takes, and their values as a config writes them."""

from __future__ import annotations

import inspect
import math
from typing import Any

# Keys of every loss in a config, next to the loss's own settings.
RESERVED = ("name", "taps", "weight", "dims", "schedule")
_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless a softmax's temperature is above 0, and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, and finite; got {temperature}")


def loss_defaults(kind: type[Any]) -> dict[str, Any]:
    """The settings of a loss: the constructor's arguments that have a default, with it.

    Arguments without a default, such as channels, come from `DistillationLoss.from_taps`.

    Raises:
        ValueError: a setting has the name of a key that every loss has in a config.
    """
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not parameter.empty and parameter.kind in _KEYWORDS
    }
    if taken := [name for name in found if name in RESERVED]:
        raise ValueError(
            f"{kind.__name__} has a setting called {taken[0]}, which in a config means something "
            "else: give the constructor's argument another name"
        )
    return found


def as_setting(value: Any, default: Any, key: str) -> Any:
    """Convert a value to the type of its setting's default.

    YAML reads ``2e-6`` as text, so text that is a number is read as one. Lists become tuples.

    Args:
        value: as it stands in a config.
        default: of the setting; where it is None, or of a type that YAML doesn't have, every value
            is taken as it is.
        key: the setting's name, for errors.

    Raises:
        ValueError: the value is of another type.
    """
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{key} takes True or False; got {value!r}")
    if isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError(f"{key} takes a whole number; got {value!r}")
    if isinstance(default, float):
        if not math.isfinite(number := as_number(value, key)):
            raise ValueError(f"{key} takes a finite number; got {value!r}")
        return number
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise ValueError(f"{key} takes a word; got {value!r}")
    if isinstance(value, list | tuple):
        kinds = default[:1] if isinstance(default, list | tuple) else ()
        return tuple(as_setting(v, kinds[0], key) if kinds else v for v in value)
    if isinstance(default, list | tuple):
        raise ValueError(f"{key} takes a list such as {list(default)}; got {value!r}")
    return value


def as_number(value: Any, key: str) -> float:
    """A value as a float, also from text such as ``2e-6``.

    Raises:
        ValueError: it isn't a number.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{key} takes a number; got {value!r}")
