"""The inputs and weights of the reference vectors in ``tests/data``, by their published formula."""

from __future__ import annotations

import json
import re
import zlib
from functools import cache
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "data"


@cache
def load(name: str) -> dict[str, np.ndarray]:
    """All arrays of ``tests/data/<name>.npz``."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def manifest(name: str) -> dict[str, Any]:
    """The cases of ``tests/data/<name>.npz`` with their arguments."""
    return json.loads(str(load(name)["manifest"]))


def state_dict_entries(model: str) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype) of every state-dict entry of a published model."""
    entries = json.loads((DATA / f"state_dict_{model}.json").read_text())
    return [(name, tuple(shape), dtype) for name, shape, dtype in entries]


def bits(key: str, count: int) -> np.ndarray:
    """``count`` 64-bit words for ``key`` (SplitMix64 of a CRC-32)."""
    start = np.uint64((zlib.crc32(key.encode()) << 32) & (2**64 - 1))
    with np.errstate(over="ignore"):
        v = (start + np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))


def normal(key: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Z(key, shape, scale): float32 of mean 0 and standard deviation ``scale``."""
    r = bits(key, prod(shape))
    mask = np.uint64(0xFFFF)
    total = sum(((r >> np.uint64(s)) & mask).astype(np.int64) for s in (0, 16, 32, 48))
    values = (total - 131070).astype(np.float64) / 37837.25 * scale
    return values.astype(np.float32).reshape(shape)


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """U(key, shape): float32 in [0, 1)."""
    r = bits(key, prod(shape))
    return ((r >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32).reshape(shape)


def integers(key: str, shape: tuple[int, ...], k: int) -> np.ndarray:
    """I(key, shape, k): int64 in 0..k-1."""
    r = bits(key, prod(shape))
    return (((r >> np.uint64(32)) * np.uint64(k)) >> np.uint64(32)).astype(np.int64).reshape(shape)


def weight(name: str, shape: tuple[int, ...], prefix: str = "") -> np.ndarray:
    """Wt(prefix + name, name, shape): the value of a state-dict entry."""
    key = prefix + name
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if name.endswith("running_var"):
        return (0.5 + np.abs(normal(key, shape)).astype(np.float64)).astype(np.float32)
    if name.endswith((".bias", ".running_mean")):
        return normal(key, shape, 0.1)
    if len(shape) == 4:
        return normal(key, shape, sqrt(2 / prod(shape[1:])))
    gain = 0.5 if re.search(r"layer[1-4]\.[0-9]+\.bn[23]\.weight$", name) else 1.0
    values = gain * (1 + 0.1 * normal(key, shape).astype(np.float64))
    return values.astype(np.float32)


def published_state_dict(model: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a published model under its official names, in float32."""
    return {
        name: torch.from_numpy(weight(name, shape, prefix))
        for name, shape, _ in state_dict_entries(model)
    }


def strided_sample(tensor: torch.Tensor, count: int) -> np.ndarray:
    """``count`` values of a tensor, evenly spread in C order."""
    flat = tensor.detach().reshape(-1).double().numpy()
    count = min(count, flat.size)
    return flat[np.arange(count) * flat.size // count]
