"""One training step: the size of each loss, its gradient at the tap, memory and time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import nn

from afdcd.checks.findings import Report
from afdcd.data import DataError, Dataset
from afdcd.data.from_config import training_mapper
from afdcd.data.stream import SampleStream
from afdcd.distill import Distiller, FeatureTaps
from afdcd.engine.precision import autocast
from afdcd.models import count_parameters

# Images of a measured step on a CPU; the batch is extrapolated.
FEW = 2
# Gradients at the tap that differ from the task's by more than this factor are worth a remark,
# by more than the second one a fault.
REMARKABLE, WRONG = 50.0, 1000.0
FP32 = 4


def load_batch(cfg: Any, dataset: Dataset, count: int, report: Report) -> list[dict[str, Any]]:
    """Augmented samples, timed; empty where a file can't be used."""
    mapper = training_mapper(cfg, dataset.label_map)
    stream = SampleStream(dataset.records, mapper, max(cfg.SEED, 0))
    start = time.perf_counter()
    samples = []
    # Files that can't be used have been named already.
    for number in range(4 * count):
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


def fits_memory(cfg: Any, model: nn.Module, device: torch.device, report: Report) -> bool:
    """Whether a step on `FEW` images may be tried, from the student's step on a small crop."""
    small = 64
    height, width = cfg.INPUT.SCALE_CROP.SIZE
    student = model.student if isinstance(model, Distiller) else model
    size = (min(height, small), min(width, small))
    batch = [
        {
            "image": torch.zeros(3, *size, device=device),
            "sem_seg": torch.zeros(size, dtype=torch.int64, device=device),
            "height": size[0],
            "width": size[1],
        }
        for _ in range(FEW)
    ]
    student.train()
    # The statistics of normalizations must stay as they were loaded.
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    with saved_bytes(student) as counter:
        student(batch)
    for name, buffer in student.named_buffers():
        buffer.copy_(before[name])
    scale = height * width / (size[0] * size[1])
    needed = counter.total * scale * cfg.SOLVER.IMS_PER_BATCH / FEW + _state_bytes(model)
    return _judge_memory(cfg, needed, device, report, tried=counter.total * scale)


def measure_step(
    cfg: Any, model: nn.Module, batch: list[dict[str, Any]], device: torch.device, report: Report
) -> None:
    """Forward and backward once, and judge losses, gradients, memory and time."""
    student = model.student if isinstance(model, Distiller) else model
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    taps = _student_taps(model)
    torch.manual_seed(0)
    with (
        saved_bytes(model) as counter,
        autocast(cfg, device),
        FeatureTaps(student, taps, whose="the student") as found,
    ):
        losses = model(batch)
    norms = _gradient_norms(losses, [found[path] for path in taps])
    seconds = _timed(cfg, model, batch, device)
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    _judge_losses(losses, norms, _weight_keys(model), report)
    whole = cfg.SOLVER.IMS_PER_BATCH / len(batch)
    _judge_memory(cfg, counter.total * whole + _state_bytes(model), device, report)
    step = seconds * whole
    report.facts["time"] = {
        "device": str(device),
        "s/step": step,
        "images measured": len(batch),
        "whole run": str(timedelta(seconds=round(step * cfg.SOLVER.MAX_ITER))),
    }
    loading = report.facts.get("loading", {}).get("images/s per process", math.inf)
    needed = cfg.SOLVER.IMS_PER_BATCH / step
    given = loading * max(cfg.DATALOADER.NUM_WORKERS, 1)
    if given < needed:
        report.note(
            "loading",
            f"the data come at about {given:.1f} images/s from {cfg.DATALOADER.NUM_WORKERS} "
            f"processes, the training takes {needed:.1f}: raise DATALOADER.NUM_WORKERS or CACHE_MB",
        )


def _student_taps(model: nn.Module) -> list[str]:
    if not isinstance(model, Distiller):
        return []
    return model.distiller.student_taps


def _gradient_norms(losses: dict[str, torch.Tensor], taps: list[torch.Tensor]) -> dict[str, float]:
    """L2 norm of each loss's gradient at the tap that most losses reach; of equals the last one."""
    if not taps:
        return {}
    at_taps: list[dict[str, float]] = [{} for _ in taps]
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        gradients = torch.autograd.grad(loss, taps, retain_graph=True, allow_unused=True)
        for norms, gradient in zip(at_taps, gradients, strict=True):
            if gradient is not None:
                norms[name] = float(gradient.float().norm())
    return max(reversed(at_taps), key=len)


def _timed(cfg: Any, model: nn.Module, batch: list[dict[str, Any]], device: torch.device) -> float:
    """Seconds of a forward and backward pass."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    with autocast(cfg, device):
        losses = model(batch)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    wait()
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def _judge_losses(
    losses: dict[str, torch.Tensor],
    norms: dict[str, float],
    keys: dict[str, str],
    report: Report,
) -> None:
    values = {name: float(value.detach()) for name, value in losses.items()}
    report.facts["losses"] = values
    report.facts["gradient norms at the student's tap"] = norms
    for name, value in values.items():
        if not math.isfinite(value) or not math.isfinite(norms.get(name, 0.0)):
            report.fix("non-finite", f"{name} is {value:g}, its gradient {norms.get(name, 0.0):g}")
    # The student's own losses; the auxiliary head's doesn't reach the tap.
    own = [norm for name, norm in norms.items() if name not in keys]
    task = norms.get("loss_sem_seg", max(own, default=0.0))
    if not math.isfinite(task) or task <= 0:
        return
    for name, norm in norms.items():
        key = keys.get(name, "")
        if not key or not math.isfinite(norm):
            continue
        ratio = norm / task
        if norm == 0:
            report.note("loss-weight", f"{name} has no gradient at the student's tap: see {key}")
        elif not 1 / REMARKABLE < ratio < REMARKABLE:
            say = report.fix if not 1 / WRONG < ratio < WRONG else report.note
            size = f"{ratio:.3g} times the task loss's"
            say(
                "loss-weight",
                f"{name}'s gradient at the student's tap is {size}; {key} multiplied by "
                f"{1 / ratio:.1g} would make them equal, by {10 / ratio:.1g} ten times it",
            )


def _weight_keys(model: nn.Module) -> dict[str, str]:
    """The config key of each distillation term's weight, by the term's name among the losses."""
    return model.distiller.weight_keys() if isinstance(model, Distiller) else {}


def _state_bytes(model: nn.Module) -> float:
    """Weights, gradients and momentum of what is trained, and the teacher's weights."""
    total = 3 * FP32 * count_parameters(model)
    if isinstance(model, Distiller):
        total += FP32 * count_parameters(model.teacher)
    return float(total)


def _judge_memory(
    cfg: Any, needed: float, device: torch.device, report: Report, tried: float = 0.0
) -> bool:
    there = available_bytes(device)
    report.facts["memory"] = {
        "a step needs at least, GiB": needed / 2**30,
        f"{device.type} has, GiB": there / 2**30,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
    }
    known = [finding.kind for finding in report.findings]
    if needed > there and "memory" not in known:
        text = (
            f"a step of {cfg.SOLVER.IMS_PER_BATCH} images needs at least {needed / 2**30:.1f} GiB, "
            f"{device} has {there / 2**30:.1f}: use a smaller SOLVER.IMS_PER_BATCH or "
            "INPUT.SCALE_CROP.SIZE, SOLVER.AMP, or several GPUs"
        )
        intended = device.type == cfg.MODEL.DEVICE.partition(":")[0]
        (report.fix if intended else report.note)("memory", text)
    return tried + _NETWORKS_MARGIN < there


_NETWORKS_MARGIN = 2.0**29


def majority_miou(labels: np.ndarray) -> float:
    """MIoU in percent of predicting the commonest class everywhere; ``labels`` are pixel counts."""
    shown = labels[labels > 0]
    if not shown.size:
        return 0.0
    return float(100 * shown.max() / shown.sum() / shown.size)


__all__ = ["DataError", "fits_memory", "load_batch", "majority_miou", "measure_step"]
