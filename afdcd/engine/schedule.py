"""The polynomial learning rate, from Detectron2's ``SOLVER`` keys."""

from __future__ import annotations

from typing import Any


def learning_rate(cfg: Any, iteration: int) -> float:
    """Learning rate of an update, counted from 0.

    ``BASE_LR * (1 - iteration / MAX_ITER) ** POLY_LR_POWER`` as published, times a warm-up if
    ``WARMUP_ITERS`` is above 0. Like ``WarmupPolyLR`` of Detectron2's DeepLab project, it stays at
    ``BASE_LR * POLY_LR_CONSTANT_ENDING`` once it has fallen below that.
    """
    solver = cfg.SOLVER
    warmup = 1.0
    if iteration < solver.WARMUP_ITERS:
        share = iteration / solver.WARMUP_ITERS
        warmup = solver.WARMUP_FACTOR
        if solver.WARMUP_METHOD == "linear":
            warmup = solver.WARMUP_FACTOR * (1 - share) + share
    ending = solver.POLY_LR_CONSTANT_ENDING
    factor = max(1 - iteration / solver.MAX_ITER, 0.0) ** solver.POLY_LR_POWER
    if ending > 0 and warmup == 1.0 and factor < ending:
        return solver.BASE_LR * ending
    return solver.BASE_LR * warmup * factor
