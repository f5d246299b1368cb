"""The contrast alone: forward and backward on two maps, in every implementation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from afdcd.benchmark.plain import plain_contrast
from afdcd.losses import patch_contrast


def contrast_calls(shape: tuple[int, int, int, int], device: str) -> dict[str, Callable[[], None]]:
    """A function for each implementation, by name, on random maps [N, C, H, W], without pooling."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape, generator=generator).relu().to(device)
    teacher = torch.randn(shape, generator=generator).relu().to(device)

    def plain() -> None:
        leaf = student.detach().requires_grad_()
        plain_contrast(leaf, teacher, pool=0).backward()

    def ours(kernel: str) -> Callable[[], None]:
        def call() -> None:
            leaf = student.detach().requires_grad_()
            patch_contrast(leaf, teacher, pool=0, kernel=kernel).backward()

        return call

    fast = "triton" if device == "cuda" else "compiled"
    return {"plain": plain, "torch": ours("torch"), fast: ours(fast)}


def subtractions(shape: tuple[int, int, int, int], *, positions: int = 16, groups: int = 16) -> int:
    """The number of differences of two values in the distances of a map's tokens.

    Every token meets every token of its patch: values of the map times tokens in a patch. The
    forward pass needs each once, the gradient once more, at three operations each (subtract,
    take the absolute value or sign, add).
    """
    n, channels, height, width = shape
    return n * channels * height * width * positions * groups
