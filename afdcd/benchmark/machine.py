"""The machine: what it is, what else runs on it, and how fast its matrix products are."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

# Share of the cores that others may take before times mean nothing.
MOST_LOAD = 0.1
_STAT = Path("/proc/stat")


class LoadMeter:
    """How much of the machine's cores other processes take, from its making on.

    On Linux what is busy (or stolen by the host) and not this process or its children; elsewhere
    the load average less this process's threads.
    """

    def __init__(self) -> None:
        self._start = _readings()

    def others(self) -> float:
        """Share 0..1 of all cores since the start."""
        cores = os.cpu_count() or 1
        if self._start is None or (now := _readings()) is None:
            return max(0.0, os.getloadavg()[0] - torch.get_num_threads()) / cores
        seconds, busy, own = (b - a for a, b in zip(self._start, now, strict=True))
        # The system counts in hundredths of a second: less than that is nothing.
        return max(0.0, busy - own - 0.02) / max(seconds * cores, 1e-9)


def _readings() -> tuple[float, float, float] | None:
    """Seconds: now, of busy cores, and of this process with its children."""
    try:
        words = _STAT.read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (float(word) for word in words)
    busy = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return time.perf_counter(), busy, own


def idle_load(seconds: float = 1.0) -> float:
    """What others take of the cores while this process waits."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.others()


def describe_machine(device: str) -> dict[str, Any]:
    """What a figure needs beside it."""
    found = {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def product_rate(device: str, dtype: torch.dtype, *, size: int = 0, repeats: int = 5) -> float:
    """FLOP a second of a square matrix product: the best of some."""
    size = size or (8192 if device == "cuda" else 2048)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device: str) -> None:
    """Until a GPU has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
