"""What a pickle may hold beside tensors: nothing of it runs code."""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np


def _numpy_parts() -> dict[str, Any]:
    """Numpy's arrays, numbers and types; without those of objects and records."""
    parts: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    # Asked of numpy itself, since the module that holds them has been renamed.
    array = np.zeros(1)
    functions = {
        "multiarray._reconstruct": array.__reduce__()[0],
        "multiarray.scalar": np.float32(0).__reduce__()[0],
        "numeric._frombuffer": array.__reduce_ex__(5)[0],
    }
    for package in ("numpy.core", "numpy._core"):
        parts |= {f"{package}.{name}": function for name, function in functions.items()}
    kinds = {name: kind for name, kind in vars(np.dtypes).items() if isinstance(kind, type)}
    return parts | {
        f"numpy.dtypes.{name}": kind
        for name, kind in kinds.items()
        if name not in ("ObjectDType", "VoidDType")
    }


# By the full name in a pickle. PyTorch knows the rest.
HARMLESS: dict[str, Any] = {"argparse.Namespace": Namespace, **_numpy_parts()}

# What PyTorch accepts, too.
_PLAIN: dict[str, Any] = {
    "_codecs.encode": codecs.encode,  # of bytes in old protocols
    "collections.OrderedDict": OrderedDict,
    **{f"builtins.{kind.__name__}": kind for kind in (set, complex, bytearray)},
}


class UnsafeClass(pickle.UnpicklingError):
    """A pickle names a class or function that could run code.

    Attributes:
        name: in full.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; raises UnsafeClass for everything else."""

    def find_class(self, module: str, name: str) -> Any:
        full = _full_name(module, name)
        if not is_harmless(full):
            raise UnsafeClass(full)
        return HARMLESS[full] if full in HARMLESS else _PLAIN[full]


def is_harmless(name: str) -> bool:
    """Whether a class or function, by its full name, runs no code of the file's."""
    return name in HARMLESS or name in _PLAIN


def _full_name(module: str, name: str) -> str:
    return f"{'builtins' if module == '__builtin__' else module}.{name}"


def names_in_pickles(data: bytes) -> list[str]:
    """Full names of the classes and functions in pickles that follow each other, without loading.

    Args:
        data: the pickles; what comes after them isn't looked at.
    """
    stream = io.BytesIO(data)
    found: dict[str, None] = {}
    try:
        while True:
            found |= dict.fromkeys(_names_in_pickle(stream))
    except (ValueError, IndexError, TypeError, UnicodeDecodeError):
        return list(found)  # the end of the pickles


def _names_in_pickle(stream: io.BytesIO) -> Iterator[str]:
    strings: list[str] = []  # as they are pushed: a module and a name come last
    memo: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            yield _full_name(*str(argument).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            yield _full_name(*strings[-2:])
        elif opcode.name == "MEMOIZE":
            memo.append(strings[-1] if strings else "")
        elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            strings += memo[argument : argument + 1]
        elif isinstance(argument, str):
            strings.append(argument)
