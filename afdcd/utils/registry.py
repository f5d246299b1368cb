"""Named parts that configs choose from: losses, backbones, heads, tasks."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

T = TypeVar("T")


class Registry(FvcoreRegistry):
    """fvcore's registry with freely chosen names, and errors that list the alternatives.

    Iterating gives (name, part).

    ::

        @LOSSES.register("my_loss")
        class MyLoss(DistillationLoss): ...

    Args:
        name: of the registry, for errors.
        base: the class of which parts are subclasses; anything is accepted when None.
    """

    def __init__(self, name: str, base: type | None = None) -> None:
        super().__init__(name)
        self._base = base
        self._listeners: list[Callable[[str], None]] = []

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated class or function under a name.

        Registering it again from the same module replaces it, as when a file is imported again.

        Raises:
            ValueError: the name belongs to a part of another module.
            TypeError: the part isn't a subclass of the registry's base class.
        """

        def decorate(part: T) -> T:
            if self._base is not None and not (
                isinstance(part, type) and issubclass(part, self._base)
            ):
                raise TypeError(
                    f"{self._name} takes subclasses of {self._base.__module__}."
                    f"{self._base.__qualname__}; got {part!r} for {name!r}"
                )
            known = self._obj_map.get(name)
            if known is not None and known.__module__ != getattr(part, "__module__", None):
                raise ValueError(
                    f"{self._name} already has {name!r}, of {_source(known)}: choose another name"
                )
            for listener in self._listeners if known is None else ():
                listener(name)
            self._obj_map[name] = part
            return part

        return decorate

    def tell_names(self, listener: Callable[[str], None]) -> None:
        """Call a function with every name, including those that are registered later."""
        for name in self.names():
            listener(name)
        self._listeners.append(listener)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a part. ``family:NAME`` joins where ``family:`` is registered."""
        if not isinstance(name, str):  # as a config may say
            return False
        family = name[: name.find(":") + 1]
        if name not in self._obj_map and family in self._obj_map:
            self.register(name)(self._obj_map[family])
        return name in self._obj_map

    def get(self, name: str) -> Any:
        """The part of that name.

        Raises:
            ValueError: there is none; the message names the nearest ones.
        """
        if name in self:
            return self._obj_map[name]
        known = sorted(self._obj_map)
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"nothing in {self._name} is called {name!r}; {hint}")

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._obj_map)


def _source(part: Any) -> str:
    """The file, or else the module, that a part is defined in."""
    return getattr(sys.modules.get(part.__module__), "__file__", None) or part.__module__
