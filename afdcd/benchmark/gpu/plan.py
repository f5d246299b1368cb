"""All checks, in the order that they are made in: first what the others are built on."""

from __future__ import annotations

from dataclasses import dataclass

from afdcd.benchmark.gpu.numerics import (
    Maps,
    components_check,
    contrast_check,
    masked_conv_check,
    step_check,
)
from afdcd.benchmark.gpu.processes import two_processes_check
from afdcd.benchmark.gpu.rows import Check
from afdcd.benchmark.gpu.runs import Trial, precision_check, recording_check, resume_check
from afdcd.benchmark.gpu.speed import Steps
from afdcd.benchmark.settings import Setting

# Of the contrast: a map, and one of few components.
MAPS = (Maps((2, 256, 64, 64)), Maps((2, 32, 64, 64)))


def small_setting(device: str) -> Setting:
    """Networks whose step is quick in float64."""
    return Setting((64, 64), 8, teacher_depth=18, width=0.25, pool=0, device=device)


@dataclass
class Plan:
    """What is checked, at which sizes.

    Attributes:
        device: ``cuda``, or ``cpu`` to test the checks themselves.
        trial: the short trainings.
        setting: of the step that is timed.
        small: of the step that is compared with float64.
        maps: of the contrast; the first is also that of the other kernels.
        triton_maps: of Triton's kernel.
        dims: components of the timed step; at most a quarter of the channels elsewhere.
        repeats: timed rounds that count.
    """

    device: str
    trial: Trial
    setting: Setting
    small: Setting
    maps: tuple[Maps, ...] = MAPS
    triton_maps: tuple[Maps, ...] = MAPS
    dims: int = 256
    repeats: int = 10

    def checks(self) -> list[Check]:
        """All of them."""
        device, first = self.device, self.maps[0]
        few = max(1, min(self.dims, first.shape[1] // 4))
        steps = Steps(self.setting, dims=self.dims, repeats=self.repeats)
        return [
            *(
                contrast_check(maps, kernel, dtype, device)
                for kernel, all_maps in (("torch", self.maps), ("triton", self.triton_maps))
                for maps in all_maps
                for dtype in ("float32", "bfloat16")
            ),
            *(masked_conv_check(first, choice, device) for choice in ("always", "never")),
            components_check(first, few, device),
            *(step_check(self.small, dims) for dims in (0, few)),
            *(precision_check(self.trial, d) for d in ("float32", "bfloat16", "float16")),
            resume_check(self.trial),
            recording_check(self.trial),
            steps.times_check(),
            steps.memory_check(),
            two_processes_check(self.trial),
        ]
