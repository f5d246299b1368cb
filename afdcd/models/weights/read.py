"""Read the tensors of a checkpoint file without running code from it."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors

from afdcd.models.weights.file_kinds import AGAIN, foreign_kind, is_safetensors, is_zip
from afdcd.models.weights.harmless import (
    HARMLESS,
    ArraysOnly,
    UnsafeClass,
    is_harmless,
    names_in_pickles,
)

# Where various trainers put the model's entries.
MODEL_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net")
# How files of torch.save began before they were zip archives: a number, pickled.
_OLD_FORMAT = b"l\xfc\x9cF\xf9 j\xa8P\x19"


class CheckpointError(ValueError):
    """A checkpoint can't be read, or doesn't fit."""


def is_address(path: str | Path) -> bool:
    """Whether it is an address, such as ``https://...``, rather than a file."""
    return "://" in str(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of PyTorch, Detectron2's model zoo or safetensors onto the CPU.

    Which of them it is shows in the file's first bytes. Tensors, arrays, numbers, strings,
    containers of them and ``argparse.Namespace`` are accepted, and nothing that runs code.

    Raises:
        CheckpointError: there is no such file, or it is truncated, corrupt, of another kind, or
            holds objects that could run code; the message says which, and names the class.
    """
    if problem := file_problem(path):
        raise CheckpointError(problem)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    if (kind := foreign_kind(data)) is not None:
        what, action = kind
        raise CheckpointError(f"{path} can't be read as a checkpoint: it {what}. {action}")
    try:
        content = _read(data)
    except UnsafeClass as error:
        raise CheckpointError(
            f"{path} holds an object of {error.name}, which could run code, so it isn't read. "
            "Where you trust it, load it with the program that wrote it, save the model's "
            "state_dict() alone by torch.save, and name that file"
        ) from error
    except Exception as error:  # damaged data make the readers raise anything
        raise CheckpointError(
            f"{path} ({len(data)} bytes) can't be read as a checkpoint: it is truncated, corrupt, "
            f"or of an unknown format. {AGAIN}; the formats that are read are those of torch.save, "
            "Detectron2's model zoo (.pkl) and safetensors"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors: save the model's "
            "state_dict()"
        )
    return content


def file_problem(path: str | Path) -> str:
    """Why there is no file at a path; empty where there is one."""
    if is_address(path):
        return f"{path} is an address, not a file: download it first, and name the file"
    path = Path(path)
    if path.is_dir():
        return f"{path.absolute()} is a folder: name a checkpoint file in it{_neighbours(path)}"
    if not path.is_file():
        return f"no checkpoint at {path.absolute()}{_neighbours(path.parent)}"
    return ""


def _neighbours(folder: Path) -> str:
    """Which checkpoints a folder holds, to end a sentence with."""
    kinds = ("*.p*", "*.safetensors")
    there = sorted(p.name for kind in kinds for p in folder.glob(kind)) if folder.is_dir() else []
    return f"; {folder} holds {', '.join(there[:8])}" if there else ""


def _read(data: bytes) -> Any:
    """The content of a file.

    Raises:
        UnsafeClass: it holds an object that could run code.
        Exception: it can't be read.
    """
    if is_safetensors(data):
        return load_safetensors(data)
    if not is_zip(data) and _OLD_FORMAT not in data[:40]:
        return ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    allowed: list[Any] = [(part, name) for name, part in HARMLESS.items()]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols: what can't be read is said below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch names the class in a text that is for programmers.
        text = str(error)
        names = [name for name in names_in_pickles(_pickles(data)) if not is_harmless(name)]
        named = [name for name in names if name.removeprefix("builtins.") in text]
        foreign = [name for name in names if not name.startswith("torch.")]
        if unsafe := max(named, key=len, default="") or next(iter(foreign), ""):
            raise UnsafeClass(unsafe) from error
        raise


def _pickles(data: bytes) -> bytes:
    """The pickles of a file of ``torch.save``."""
    if not is_zip(data):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.split("/")[-1] == "data.pkl")
        return archive.read(name)


def _is_numeric(value: Any) -> bool:
    """Whether it is a tensor, or an array of numbers."""
    array = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    return array or isinstance(value, torch.Tensor)


def model_entries(
    checkpoint: dict[str, Any], source: str = "the checkpoint"
) -> dict[str, torch.Tensor]:
    """The model's tensors in a checkpoint, wherever it keeps them, by their plain names.

    Plain names are without what wrappers add: ``module.`` (of parallel training) at the beginning
    of all of them, and ``_orig_mod.`` (of ``torch.compile``) anywhere.

    Raises:
        CheckpointError: there are none.
    """
    content: Any = checkpoint
    for key in MODEL_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    entries = {
        name: torch.as_tensor(value)
        for name, value in content.items()
        if isinstance(name, str) and _is_numeric(value)
    }
    if not entries:
        raise CheckpointError(
            f"{source} holds no tensors by name; its entries are "
            f"{', '.join(map(str, list(checkpoint)[:8])) or 'none'}"
        )
    entries = {name.replace("_orig_mod.", ""): value for name, value in entries.items()}
    while all(name.startswith("module.") for name in entries):
        entries = {name.removeprefix("module."): value for name, value in entries.items()}
    return entries
