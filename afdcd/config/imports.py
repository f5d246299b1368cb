"""``IMPORTS``: Python modules of the user's own, imported before anything is checked or built."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from fvcore.common.config import CfgNode

from afdcd.config.errors import ConfigError
from afdcd.config.paths import absolute_path
from afdcd.utils.user_modules import SUFFIX, file_module_name, import_user_module

KEY = "IMPORTS"
# Code whose lines say little about an error in a user's file: this package, Python itself, and what
# is installed.
_LIBRARIES = (
    "<frozen ",
    str(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


def listed(value: Any, source: str) -> list[str]:
    """The names that ``IMPORTS`` holds: a list, or one name alone.

    Args:
        value: as a YAML file or the command line has it.
        source: where it is from, for errors.

    Raises:
        ConfigError: something else than names.
    """
    if value is None:
        return []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(
            f"{source}: {KEY} takes a list of modules (my_package.my_losses) and files "
            f"(my_losses{SUFFIX}); got {value!r}"
        )
    return list(names)


def anchored(names: Iterable[str], folder: Path, source: str) -> list[str]:
    """The same names, with files as absolute paths: relative ones are looked for in ``folder``.

    Raises:
        ConfigError: a path of ``source`` has a variable that isn't set.
    """
    where = f"{source}: {KEY}"
    return [absolute_path(name, folder, where) if _is_file(name) else name for name in names]


def _is_file(name: str) -> bool:
    return name.endswith(SUFFIX)


def import_all(cfg: CfgNode, names: Iterable[str], source: str) -> None:
    """Import modules, let them add keys to a config, and append them to its ``IMPORTS``.

    A module is run once in a process. Its function ``add_config(cfg)``, where it has one, is called
    once for every config that names it.

    Args:
        cfg: changed.
        names: modules, and absolute paths of files.
        source: the config file or command line that names them, for errors.

    Raises:
        ConfigError: a module isn't there, or fails; the message says where.
    """
    for name in names:
        if name in cfg[KEY]:
            continue
        module = _import(name, source)
        add_config = getattr(module, "add_config", None)
        if add_config is not None:
            try:
                add_config(cfg)
            except Exception as error:
                raise ConfigError(
                    f"{source}: {KEY}: add_config of {_failure(name, error)}"
                ) from error
        cfg[KEY] = [*cfg[KEY], name]


def _import(name: str, source: str) -> ModuleType:
    where = f"{source}: {KEY}"
    if not _is_file(name):
        if missing := _missing_module(name):
            raise ConfigError(f"{where}: {missing}")
    elif not Path(name).is_file():
        raise ConfigError(f"{where}: {_missing_file(Path(name))}")
    try:
        return import_user_module(file_module_name(Path(name)) if _is_file(name) else name)
    # A script that ends itself when it is imported is no reason to end without a word.
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {_failure(name, error)}") from error


# --- What isn't there ---------------------------------------------------------------------------


def _missing_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no file {path}: there is no folder {path.parent}"
    near = _near(path.name, [p.name for p in path.parent.glob(f"*{SUFFIX}")])
    return f"no file {path}{near}"


def _missing_module(name: str) -> str:
    """What to say where a module isn't there; nothing where it is, or where its package fails."""
    if "/" in name or "\\" in name:
        return f"{name!r} is no module's name, and a file's ends in {SUFFIX}"
    parent, _, last = name.rpartition(".")
    if parent and (missing := _missing_module(parent)):
        return missing
    if name in sys.modules:
        return ""
    folders: list[str] = sys.path
    try:
        if parent:
            folders = list(getattr(importlib.import_module(parent), "__path__", []))
        if not folders:
            return f"no module {name}: {parent} is no package"
        if importlib.util.find_spec(name) is not None:
            return ""
    except (Exception, SystemExit):
        return ""  # importing the module says why
    looked = ", ".join(str(Path(folder).absolute()) for folder in folders)
    near = _near(last, [found.name for found in pkgutil.iter_modules(folders)])
    hint = "" if parent else ". Add its folder to PYTHONPATH, or name the .py file"
    return f"no module {name} in {looked}{near}{hint}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


# --- What fails ---------------------------------------------------------------------------------


def _failure(name: str, error: BaseException) -> str:
    """Which module failed, in which line, by which error."""
    text = f"{type(error).__name__}: {str(error)[:1000]}".removesuffix(": ")
    place = ""
    if isinstance(error, SyntaxError) and error.filename:
        text = f"{type(error).__name__}: {error.msg}"
        place = _line(name, error.filename, error.lineno or 0)
    else:
        stack = list(traceback.extract_tb(error.__traceback__))
        frames = [f for f in stack if not f.filename.startswith(_LIBRARIES)] or stack[-1:]
        own = [frame for frame in frames if frame.filename == name]
        for frame in [*own[-1:], *([] if frames[-1:] == own[-1:] else frames[-1:])]:
            place += _line(name, frame.filename, frame.lineno or 0)
    return f"{name}{place}: {text}{_neighbour(name, error)}"


def _line(name: str, file: str, number: int) -> str:
    return f", line {number}" if file == name else f", {file}, line {number}"


def _neighbour(name: str, error: BaseException) -> str:
    """A hint, where a file imports one that lies beside it by its bare name."""
    if not (_is_file(name) and isinstance(error, ModuleNotFoundError) and error.name):
        return ""
    folder, top = Path(name).parent, error.name.partition(".")[0]
    if not ((folder / f"{top}{SUFFIX}").is_file() or (folder / top / "__init__.py").is_file()):
        return ""
    return f". {top} lies beside it, where Python doesn't look: add {folder} to PYTHONPATH"
