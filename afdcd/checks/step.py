"""One training step: its losses and their gradients, memory and time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from afdcd.checks.gradients import (
    gradient_norms,
    judge_gradients,
    judge_values,
    student_taps,
)
from afdcd.distill import Distiller, FeatureTaps
from afdcd.engine.precision import autocast
from afdcd.engine.settings import TrainingSettings
from afdcd.models import count_parameters
from afdcd.tasks import Task
from afdcd.utils.findings import Report
from afdcd.utils.progress import clock

# Images of a measured step on a CPU; the batch is extrapolated.
FEW = 2
FP32 = 4


def load_batch(
    settings: TrainingSettings, task: Task, count: int, report: Report
) -> list[dict[str, Any]]:
    """Augmented samples, timed; empty where a file can't be used."""
    stream = settings.loading.stream(task.dataset.records, task.targets(), max(settings.seed, 0))
    start = time.perf_counter()
    samples = []
    # Of a batch with images of both kinds, the first one has labels, and the last one none.
    numbers = dict.fromkeys([0, settings.batch.images - 1, *range(4 * count)])
    # Files that can't be used have been named already.
    for number in numbers:
        sample = stream[number]
        if "error" not in sample:
            samples.append(sample)
        if len(samples) == count:
            break
    if not samples:
        return []
    seconds = (time.perf_counter() - start) / len(samples)
    report.facts["loading"] = {"images/s per process": 1 / max(seconds, 1e-9)}
    return samples


class SavedBytes:
    """Counts what autograd keeps for the backward pass, each storage once."""

    def __init__(self, model: nn.Module) -> None:
        self._seen = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.total = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take note of a saved tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[SavedBytes]:
    """Count while the block runs; storages that are freed and reused count once."""
    counter = SavedBytes(model)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda tensor: tensor):
        yield counter


def available_bytes(device: torch.device) -> int:
    """Memory that a run on the device can use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fits_memory(
    settings: TrainingSettings,
    model: nn.Module,
    samples: list[dict[str, Any]],
    device: torch.device,
    report: Report,
) -> bool:
    """Whether a step on `FEW` images may be tried, from the student's step on a small crop."""
    small = 64
    height, width = samples[0]["image"].shape[-2:]
    student = model.student if isinstance(model, Distiller) else model
    size = (min(height, small), min(width, small))
    batch = [_corner(sample, size, device) for sample in samples[:FEW]]
    student.train()
    # The statistics of normalizations must stay as they were loaded.
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    with saved_bytes(student) as counter:
        student(batch)
    for name, buffer in student.named_buffers():
        buffer.copy_(before[name])
    scale = height * width / (size[0] * size[1])
    needed = counter.total * scale * settings.batch.images / len(batch) + _state_bytes(model)
    return _judge_memory(settings, needed, device, report, tried=counter.total * scale)


def _corner(sample: dict[str, Any], size: tuple[int, int], device: torch.device) -> dict[str, Any]:
    """The upper left corner of a sample."""
    corner = {
        name: value[..., : size[0], : size[1]].to(device)
        for name, value in sample.items()
        if isinstance(value, torch.Tensor)
    }
    return corner | {"height": size[0], "width": size[1]}


def measure_step(
    settings: TrainingSettings,
    model: nn.Module,
    batch: list[dict[str, Any]],
    device: torch.device,
    report: Report,
    *,
    task_loss: str = "",
) -> None:
    """Forward and backward once, and judge losses, gradients, memory and time.

    Gradients are measured against that of ``task_loss``, or of the largest of the student's own
    losses.
    """
    student = model.student if isinstance(model, Distiller) else model
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    taps = student_taps(model)
    torch.manual_seed(0)
    with (
        saved_bytes(model) as counter,
        autocast(settings.precision, device),
        FeatureTaps(student, taps, whose="the student") as found,
    ):
        losses = model(batch)
    norms = gradient_norms(losses, {path: found[path] for path in taps})
    seconds = _timed(settings, model, batch, device)
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    judge_values(losses, report)
    judge_gradients(model, norms, task_loss, report)
    parts = settings.batch.images / len(batch)
    _judge_memory(settings, counter.total * parts + _state_bytes(model), device, report)
    step = seconds * parts
    report.facts["time"] = {
        "device": str(device),
        "s/step": step,
        "images measured": len(batch),
        "whole run": clock(step * settings.max_iter),
    }
    loading = report.facts.get("loading", {}).get("images/s per process", math.inf)
    needed = settings.batch.images / step
    given = loading * max(settings.loading.workers, 1)
    if given < needed:
        report.note(
            "loading",
            f"the data come at about {given:.1f} images/s from {settings.loading.workers} "
            f"processes, the training takes {needed:.1f}: raise DATALOADER.NUM_WORKERS or CACHE_MB",
        )


def _timed(
    settings: TrainingSettings,
    model: nn.Module,
    batch: list[dict[str, Any]],
    device: torch.device,
) -> float:
    """Seconds of a forward and backward pass."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    with autocast(settings.precision, device):
        losses = model(batch)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    wait()
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def _state_bytes(model: nn.Module) -> float:
    """Weights, gradients and momentum of what is trained, and the teacher's weights."""
    total = 3 * FP32 * count_parameters(model)
    if isinstance(model, Distiller):
        total += FP32 * count_parameters(model.teacher)
    return float(total)


def _judge_memory(
    settings: TrainingSettings,
    needed: float,
    device: torch.device,
    report: Report,
    tried: float = 0.0,
) -> bool:
    there = available_bytes(device)
    report.facts["memory"] = {
        "a step needs at least, GiB": needed / 2**30,
        f"{device.type} has, GiB": there / 2**30,
        "batch": settings.batch.images,
    }
    known = [finding.kind for finding in report.findings]
    if needed > there and "memory" not in known:
        text = (
            f"a step of {settings.batch.images} images needs at least {needed / 2**30:.1f} GiB, "
            f"{device} has {there / 2**30:.1f}: use a smaller SOLVER.IMS_PER_BATCH or "
            "INPUT.SCALE_CROP.SIZE, SOLVER.AMP, or several GPUs"
        )
        intended = device.type == settings.device.partition(":")[0]
        (report.fix if intended else report.note)("memory", text)
    return tried + _NETWORKS_MARGIN < there


_NETWORKS_MARGIN = 2.0**29
