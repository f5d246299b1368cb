"""Named parts that configs choose from: losses, backbones, heads, tasks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

T = TypeVar("T")


class Registry(FvcoreRegistry):
    """fvcore's registry with names of one's own choice, and errors that list what there is.

    Iterating gives (name, part).

    ::

        @LOSSES.register("my_loss")
        class MyLoss(DistillationLoss): ...
    """

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated class or function under a name.

        Registering it again from the same module replaces it, as when a file is imported anew.

        Raises:
            ValueError: the name belongs to a part of another module.
        """

        def decorate(part: T) -> T:
            known = self._obj_map.get(name)
            if known is not None and known.__module__ != getattr(part, "__module__", None):
                raise ValueError(
                    f"{self._name} already has {name!r}, of {known.__module__}: choose another name"
                )
            self._obj_map[name] = part
            return part

        return decorate

    def get(self, name: str) -> Any:
        """The part of that name.

        Raises:
            ValueError: there is none; the message names the nearest ones.
        """
        if name in self._obj_map:
            return self._obj_map[name]
        known = sorted(self._obj_map)
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"nothing in {self._name} is called {name!r}; {hint}")

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._obj_map)
