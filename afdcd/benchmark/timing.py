"""Seconds of each part of a step, with the variants taking turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import torch

from afdcd.benchmark.machine import wait
from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.sides import build_side, make_batch, run_step


@dataclass
class Times:
    """Seconds by part, of each repeat.

    Attributes:
        parts: in the order of the step.
    """

    parts: dict[str, list[float]] = field(default_factory=dict)

    def add(self, seconds: dict[str, float]) -> None:
        for part, value in seconds.items():
            self.parts.setdefault(part, []).append(value)

    @property
    def totals(self) -> list[float]:
        """Seconds of each repeat, all parts together."""
        return [sum(values) for values in zip(*self.parts.values(), strict=True)]

    def summary(self) -> dict[str, dict[str, float]]:
        """Median, smallest and largest of each part and of the total."""
        rows = {**self.parts, "total": self.totals}
        return {
            name: {"median": median(values), "least": min(values), "most": max(values)}
            for name, values in rows.items()
        }


class Stopwatch:
    """Seconds between marks, by name. On a GPU its own events are used, so that nothing waits."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._names: list[str] = []
        self._moments: list[float | torch.cuda.Event] = [self._now()]

    def _now(self) -> float | torch.cuda.Event:
        if self._device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self, name: str) -> None:
        """End the part that began at the last mark."""
        self._names.append(name)
        self._moments.append(self._now())

    def seconds(self) -> dict[str, float]:
        wait(self._device)
        result = {}
        for name, (start, end) in zip(self._names, pairwise(self._moments), strict=True):
            if isinstance(start, float) and isinstance(end, float):
                result[name] = end - start
            elif isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                result[name] = start.elapsed_time(end) / 1000
        return result


def use_tf32(enabled: bool) -> None:
    """Let a GPU round float32 products to TensorFloat-32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def time_steps(setting: Setting, variants: Sequence[Variant], *, repeats: int) -> dict[str, Times]:
    """Times by variant; each round runs every variant once, and the first round isn't counted."""
    sides = {variant.name: build_side(setting, variant) for variant in variants}
    batch = make_batch(setting)
    times = {variant.name: Times() for variant in variants}
    for number in range(repeats + 1):
        for variant in variants:
            use_tf32(variant.tf32)
            watch = Stopwatch(setting.device)
            run_step(sides[variant.name], batch, watch.mark)
            if number:
                times[variant.name].add(watch.seconds())
    return times


def time_calls(
    calls: dict[str, Callable[[], None]], device: str, *, repeats: int
) -> dict[str, Times]:
    """Times of whole functions, in turns; the first round isn't counted."""
    times = {name: Times() for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            watch = Stopwatch(device)
            call()
            watch.mark("total")
            if number:
                times[name].add(watch.seconds())
    return times
