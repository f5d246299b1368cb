"""Peak memory of a step, each variant in a process of its own.

Two measures. **Tensors**: the bytes that live in PyTorch's allocator at the peak (on a GPU its own
counter; on a CPU every allocation and release of one step, as the profiler records them, on top of
weights, momentum and buffers). It is the same in every run. **Resident** (a CPU under Linux): the
process's peak of physical memory in the second step, above what it had before the networks were
built. It also holds what libraries keep, fragments, and the compiler that a first step may start.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from afdcd.benchmark.contrast import contrast_calls
from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.sides import build_side, make_batch, run_step
from afdcd.benchmark.timing import use_tf32


def measure_step(setting: Setting, variant: Variant) -> dict[str, float]:
    """``tensors`` and, where it is known, ``resident``, in bytes."""
    return _in_process({"kind": "step", "setting": asdict(setting), "variant": asdict(variant)})


def measure_contrast(shape: tuple[int, int, int, int], way: str, device: str) -> dict[str, float]:
    """The same for a forward and backward pass of the contrast alone."""
    return _in_process({"kind": "contrast", "shape": shape, "way": way, "device": device})


def _in_process(task: dict[str, Any]) -> dict[str, float]:
    task["threads"] = torch.get_num_threads()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "afdcd.benchmark.memory", json.dumps(task)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _task(task: dict[str, Any]) -> dict[str, float]:
    torch.set_num_threads(task["threads"])
    before = psutil.Process().memory_info().rss
    if task["kind"] == "contrast":
        device = task["device"]
        call = contrast_calls(tuple(task["shape"]), device)[task["way"]]
        return _peak(call, lambda: 0, device, before)
    setting = Setting(**{**task["setting"], "crop": tuple(task["setting"]["crop"])})
    variant = Variant(**task["variant"])
    use_tf32(variant.tf32)
    side, batch = build_side(setting, variant), make_batch(setting)

    def step() -> None:
        run_step(side, batch, lambda part: None)
        side.optimizer.zero_grad()

    return _peak(step, live_bytes, setting.device, before)


def live_bytes() -> int:
    """Bytes of all CPU tensors that Python holds, such as weights, momentum and the teacher.

    Each storage is counted once.
    """
    sizes = {}
    for item in gc.get_objects():
        if type(item) in (torch.Tensor, nn.Parameter) and item.device.type == "cpu":
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _peak(
    call: Callable[[], None], kept: Callable[[], int], device: str, before: int
) -> dict[str, float]:
    call()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return {"tensors": float(torch.cuda.max_memory_allocated())}
    result = {}
    resets = _reset_peak()
    call()
    if resets and (peak := _resident_peak()) is not None:
        result["resident"] = float(peak - before)
    result["tensors"] = float(kept() + allocated_peak(call))
    return result


def allocated_peak(call: Callable[[], None]) -> int:
    """The peak number of bytes in CPU tensors that a function makes."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Total Allocated"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]"
    )
    if not changes:
        return 0
    start = changes[0][1] - changes[0][2]
    return max(total for _, total, _ in changes) - start


def _resident_peak() -> int | None:
    """The peak of physical memory in bytes, which psutil doesn't give under Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(_task(json.loads(sys.argv[1]))))
