"""Take a training step of a config's model at several crops, in the format that training uses.

As a script, in a process of its own: a fault in a native library ends the process.

    python tests/helpers/one_step.py CONFIG CROP [CROP ...]
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.utils.memory_format import format_module

CHANNELS_LAST_SENSITIVE = ("convolution", "batch_norm")


class ChannelsLast(TorchDispatchMode):
    """Notes the convolutions and normalizations that are given maps in channels_last format."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in CHANNELS_LAST_SENSITIVE):
            self.seen += 1
            maps = [a for a in args if isinstance(a, torch.Tensor) and a.dim() == 4]
            self.found += [
                f"{func} {tuple(a.shape)} {a.stride()}" for a in maps if not a.is_contiguous()
            ]
        return func(*args, **(kwargs or {}))


def build(config: str, crop: int) -> nn.Module:
    """The model that a config trains, its teacher untrained."""
    setup = EmbeddedRuntime.configure(config, ["INPUT.SCALE_CROP.SIZE", f"[{crop},{crop}]"])
    torch.manual_seed(0)
    model: nn.Module = setup.build()
    if setup.distils:
        teacher = setup.teacher()
        model = setup.pair(model, teacher, teacher.build())
    return format_module(model).train()


def take_step(model: nn.Module, crop: int) -> dict[str, float]:
    """Losses of two random images, after their backward pass."""
    samples = [
        {
            "image": torch.rand(3, crop, crop) * 255,
            "sem_seg": torch.randint(0, 2, (crop, crop)),
        }
        for _ in range(2)
    ]
    losses = model(samples)
    sum(losses.values()).backward()
    return {name: value.item() for name, value in losses.items()}


def main(config: str, crops: list[int]) -> None:
    torch.set_num_threads(1)
    for crop in crops:
        model = build(config, crop)
        print(crop, take_step(model, crop))
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters()), (
            "a gradient isn't finite"
        )


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.argv[2:]])
