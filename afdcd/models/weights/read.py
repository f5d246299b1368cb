"""Read the tensors of a checkpoint file without running code from it."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

# Where various trainers put the model's entries.
MODEL_KEYS = ("model", "state_dict", "model_state_dict", "net")


class CheckpointError(ValueError):
    """A checkpoint can't be read, or doesn't fit."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; refuses everything else."""

    ALLOWED: ClassVar = {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        if module.startswith("numpy") and module.endswith("multiarray"):
            from numpy._core import multiarray

            return getattr(multiarray, name)
        return super().find_class(module, name)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a ``.pth`` (PyTorch) or ``.pkl`` (Detectron2's model zoo) file onto the CPU.

    Tensors, numbers, strings and containers of them are accepted, but nothing that runs code
    (``weights_only=True``).

    Raises:
        CheckpointError: there is no such file, or it is truncated, corrupt, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent
        names = sorted(p.name for p in folder.glob("*.p*")) if folder.is_dir() else []
        found = f"; {folder} holds {', '.join(names[:8])}" if names else ""
        raise CheckpointError(f"no checkpoint at {path}{found}")
    data = path.read_bytes()
    try:
        if path.suffix == ".pkl":
            content = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
        else:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
        ImportError,
    ) as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} ({len(data)} bytes) can't be read as a checkpoint: it is truncated, corrupt, "
            f"or holds more than tensors ({reason}). Copy or download it again; a file that holds "
            "whole Python objects must be saved again as a state dict"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors: save the model's "
            "state_dict()"
        )
    return content


def model_entries(
    checkpoint: dict[str, Any], source: str = "the checkpoint"
) -> dict[str, torch.Tensor]:
    """The model's tensors in a checkpoint, wherever it keeps them, without a ``module.`` prefix.

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
        if isinstance(value, (torch.Tensor, np.ndarray)) and isinstance(name, str)
    }
    if not entries:
        raise CheckpointError(
            f"{source} holds no tensors by name; its entries are "
            f"{', '.join(map(str, list(checkpoint)[:8])) or 'none'}"
        )
    if all(name.startswith("module.") for name in entries):
        entries = {name.removeprefix("module."): value for name, value in entries.items()}
    return entries
