"""Users' modules: packages of their own, and files, which become submodules of this package.

A file's module name spells its path, so that files of the same name in different folders don't
clash, and so that any process can import it by name: unpickling an object of such a module in a
loader process imports this package first, and with it the finder that reads the path from the name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

SUFFIX = ".py"
_PREFIX = f"{__name__}."
# Names of what `import_user_module` has imported in this process, in order.
_imported: list[str] = []


def file_module_name(path: Path) -> str:
    """The module name of a Python file.

    Letters and digits of the path stand for themselves, ``_`` is written ``__``, and every other
    byte is ``_`` with two hexadecimal digits.

    Args:
        path: absolute, ending in ``.py``.
    """
    spelt = os.fsencode(path.with_suffix(""))
    return _PREFIX + re.sub(rb"[^0-9A-Za-z]", _escaped, spelt).decode("ascii")


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"__" if match[0] == b"_" else b"_%02x" % ord(match[0])


def module_file(name: str) -> Path | None:
    """The file that a name of `file_module_name` stands for; None for any other module's name."""
    if not name.startswith(_PREFIX):
        return None
    spelt = re.sub(rb"_(_|[0-9a-f]{2})", _unescaped, name.removeprefix(_PREFIX).encode())
    return Path(os.fsdecode(spelt) + SUFFIX)


def _unescaped(match: re.Match[bytes]) -> bytes:
    return b"_" if match[1] == b"_" else bytes([int(match[1], 16)])


class _FileFinder(MetaPathFinder):
    """Finds the files that module names spell."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = module_file(fullname)
        if file is None or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, file)


sys.meta_path.append(_FileFinder())


def import_user_module(name: str) -> ModuleType:
    """Import a module and remember it, so that loader processes import it too.

    A module that was imported before isn't run again.

    Args:
        name: dotted; for a file that of `file_module_name`.
    """
    module = importlib.import_module(name)
    if name not in _imported:
        _imported.append(name)
    return module


class _UserModules:
    """Unpickling this imports the modules that the pickling process had imported."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _import_all, (tuple(_imported),)


def _import_all(names: Sequence[str]) -> _UserModules:
    for name in names:
        import_user_module(name)
    return USER_MODULES


# To be pickled before the objects for which a loader process needs the modules.
USER_MODULES = _UserModules()


def after_user_modules(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, wrapped so that unpickling it imports the user's modules first."""
    return partial(_call, USER_MODULES, function)


def _call(modules: _UserModules, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
