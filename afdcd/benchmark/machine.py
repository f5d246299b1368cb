"""The machine: what it is, what else runs on it, and how fast its matrix products are."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import psutil
import torch


class LoadMeter:
    """The share of the machine's cores that other processes take since the meter's construction.

    That is the time for which cores are busy, or taken by the host of a virtual machine, without
    that of this process and its finished children.
    """

    def __init__(self) -> None:
        self._start = _readings()

    def others(self) -> float:
        """Share 0..1 of all cores since the start."""
        pairs = zip(self._start, _readings(), strict=True)
        seconds, busy, own = (after - before for before, after in pairs)
        # The system counts in hundredths of a second: less than two of them is noise.
        return max(0.0, busy - own - 0.02) / max(seconds * (psutil.cpu_count() or 1), 1e-9)


def _readings() -> tuple[float, float, float]:
    """The time, all cores' busy time, and that of this process with its children, in seconds."""
    cores = psutil.cpu_times()
    # Linux counts a virtual machine's guests as user time already.
    idle = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(value for name, value in cores._asdict().items() if name not in idle)
    return time.perf_counter(), busy, sum(psutil.Process().cpu_times()[:4])


def idle_load(seconds: float = 1.0) -> float:
    """Share 0..1 of the cores that other processes take while this one waits."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.others()


def describe_machine(device: str) -> dict[str, Any]:
    """What has to be reported along with a figure."""
    found = {
        "device": device,
        "cores": psutil.cpu_count(),
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


# In seconds; a product that takes longer is measured at a smaller size: CPUs without instructions
# for bfloat16 compute it a hundred times more slowly than float32.
LONGEST_PRODUCT = 0.5


def product_rate(device: str, dtype: torch.dtype, *, size: int = 0, repeats: int = 5) -> float:
    """FLOP per second of a square matrix product: the best of several.

    Args:
        device: to measure on.
        dtype: of the matrices.
        size: rows and columns; by default the largest that takes no longer than `LONGEST_PRODUCT`.
        repeats: how often the product is repeated after the first time.
    """
    if not size:
        size, largest = 256, 8192 if device == "cuda" else 2048
        while size < largest and 8 * _product_seconds(device, dtype, size) < LONGEST_PRODUCT:
            size *= 2
    best = min(_product_seconds(device, dtype, size) for _ in range(repeats + 1))
    return 2 * size**3 / best


def _product_seconds(device: str, dtype: torch.dtype, size: int) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    wait(device)
    start = time.perf_counter()
    torch.mm(a, b)
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
