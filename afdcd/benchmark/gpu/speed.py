"""What a step costs with recorded and with live compact targets, in times the student's own."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from afdcd.benchmark.gpu.rows import Check, Figure
from afdcd.benchmark.memory import measure_step
from afdcd.benchmark.settings import Setting, Variant, variants, with_student_alone
from afdcd.benchmark.timing import time_steps

# In times the student's own.
TIME_LIMITS = {"recorded": 1.20, "compact": 2.4}
MEMORY_LIMIT = 1.1
T = TypeVar("T")


class Steps:
    """Steps of one setting, with smaller batches where the GPU has no memory for them.

    Args:
        setting: the networks, crop and batch to begin with.
        dims: principal components of the teacher's map.
        repeats: rounds that count.
    """

    def __init__(self, setting: Setting, *, dims: int, repeats: int) -> None:
        self.setting, self.repeats = setting, repeats
        found = variants(setting.device, dims)
        self.chosen = [v for v in found if v.dims and v.name.split()[0] in TIME_LIMITS]

    def times_check(self) -> Check:
        """Seconds of a step with each kind of targets over those of the student alone."""

        def measure() -> dict[str, Figure]:
            chosen = with_student_alone(self.chosen)
            times = self._that_fits(lambda: time_steps(self.setting, chosen, repeats=self.repeats))
            medians = {name: found.summary()["total"]["median"] for name, found in times.items()}
            figures = {}
            for variant in self.chosen:
                own = medians[variant.student_alone.name]
                seconds = medians[variant.name]
                note = f"{seconds:.3g} s, the student's own {own:.3g} s; {self._size()}"
                limit = TIME_LIMITS[variant.name.split()[0]]
                figures[f"{variant.name}, times student"] = Figure(seconds / own, limit, note)
            return figures

        return Check("step", measure)

    def memory_check(self) -> Check:
        """Peak memory with each kind of targets, in bfloat16, over that of the student alone."""

        def measure() -> dict[str, Figure]:
            low = [variant for variant in self.chosen if variant.dtype == "bfloat16"]
            peaks = self._that_fits(lambda: self._peaks(with_student_alone(low)))
            figures = {}
            for variant in low:
                peak, own = peaks[variant.name], peaks[variant.student_alone.name]
                note = f"{peak / 2**20:.0f} MiB, the student's own {own / 2**20:.0f} MiB"
                note += f"; {self._size()}"
                figures[f"{variant.name}, times student"] = Figure(peak / own, MEMORY_LIMIT, note)
            return figures

        return Check("peak memory", measure)

    def _peaks(self, chosen: list[Variant]) -> dict[str, float]:
        try:
            return {v.name: measure_step(self.setting, v)["tensors"] for v in chosen}
        except RuntimeError as error:
            # Of another process, as its output.
            if "OutOfMemoryError" in str(error):
                raise torch.cuda.OutOfMemoryError(str(error)) from error
            raise

    def _size(self) -> str:
        height, width = self.setting.crop
        return f"{self.setting.batch} images of {height}x{width}"

    def _that_fits(self, measure: Callable[[], T]) -> T:
        """Measure, with half the batch as often as there is no memory for it; 2 is the least."""
        while True:
            _free()
            try:
                return measure()
            except torch.cuda.OutOfMemoryError:
                if self.setting.batch < 4:
                    raise
            self.setting = replace(self.setting, batch=self.setting.batch // 2)


def _free() -> None:
    """Give memory back, for this process and for one that measures."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
