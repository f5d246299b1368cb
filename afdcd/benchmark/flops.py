"""The arithmetic of a step, counted while it runs."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.sides import build_side, make_batch, run_step


def count_products(setting: Setting, variant: Variant) -> dict[str, float]:
    """FLOP (two per multiply-add) of convolutions and matrix products, by part of a step.

    What a variant leaves out (hidden positions) isn't counted, nor are sums, norms and distances.
    """
    side, batch = build_side(setting, variant), make_batch(setting)
    counts: dict[str, float] = {}
    with FlopCounterMode(display=False) as counter:
        counted = 0

        def mark(part: str) -> None:
            nonlocal counted
            total = counter.get_total_flops()
            counts[part], counted = float(total - counted), total

        run_step(side, batch, mark)
    return {part: count for part, count in counts.items() if count}


def at_rate(dtype: str, rates: dict[str, float]) -> float:
    """FLOP per second of products in ``dtype``; float32's where ``dtype`` wasn't measured."""
    return rates.get(dtype) or rates["float32"]


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
