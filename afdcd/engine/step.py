"""A step's forward and backward passes, the same in both runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from afdcd.distill import Distiller


def accumulate(
    model: nn.Module,
    batch: Sequence[dict[str, Any]],
    *,
    parts: int,
    precision: Callable[[], AbstractContextManager[Any]],
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Forward and backward, on a batch cut into parts; gradients are added to those there are.

    The gradients are the mean of the parts': for losses that are means over images, exactly the
    whole batch's. The task's loss is a mean over the labelled pixels of each part, as with several
    processes of each process's; BatchNorm normalizes each part by itself; dropout draws part by
    part. Masks are drawn for the whole batch.

    Args:
        model: in Detectron2's protocol, perhaps in DistributedDataParallel, which averages the
            gradients among the processes after the last part only.
        batch: of this process; ``parts`` divides its length.
        parts: how many, 1 or more.
        precision: makes the autocast context of a forward pass.
        scaler: of the loss.
        device: that the batch is wanted on.

    Returns:
        each loss's mean over the parts, detached.

    Raises:
        ValueError: ``parts`` doesn't divide the batch.
    """
    if len(batch) % parts:
        raise ValueError(f"{len(batch)} images can't be cut into {parts} equal parts")
    size = len(batch) // parts
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    means: dict[str, torch.Tensor] = {}
    for index in range(parts):
        part = [to_device(item, device) for item in batch[index * size : (index + 1) * size]]
        if isinstance(inner, Distiller):
            inner.distiller.take_part(index, parts)
        last = index == parts - 1
        alone = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with precision():
                losses = model(part)
            total = torch.stack([value.float() for value in losses.values()]).sum()
            scaler.scale(total if parts == 1 else total / parts).backward()
        for name, value in losses.items():
            share = value.detach().float() / parts
            means[name] = means[name] + share if name in means else share
    return means


def to_device(item: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A sample with its tensors on the device.

    Once for student and teacher, and without waiting where the loader has pinned them.
    """
    if device.type == "cpu":
        return dict(item)
    return {name: _moved(value, device) for name, value in item.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):  # what is recorded of the teacher
        return {name: _moved(part, device) for name, part in value.items()}
    return value
