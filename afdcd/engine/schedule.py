"""The polynomial learning rate, from Detectron2's ``SOLVER`` keys."""

from __future__ import annotations

from afdcd.engine.settings import ScheduleSettings


def learning_rate(settings: ScheduleSettings, iteration: int) -> float:
    """Learning rate of an update, counted from 0.

    ``BASE_LR * (1 - iteration / MAX_ITER) ** POLY_LR_POWER`` as published, times a warm-up if
    ``WARMUP_ITERS`` is above 0. Like ``WarmupPolyLR`` of Detectron2's DeepLab project, it stays at
    ``BASE_LR * POLY_LR_CONSTANT_ENDING`` once it has fallen below that.
    """
    warmup = 1.0
    if iteration < settings.warmup_iters:
        share = iteration / settings.warmup_iters
        warmup = settings.warmup_factor
        if settings.warmup_method == "linear":
            warmup = settings.warmup_factor * (1 - share) + share
    ending = settings.constant_ending
    factor = max(1 - iteration / settings.max_iter, 0.0) ** settings.power
    if ending > 0 and warmup == 1.0 and factor < ending:
        return settings.base_lr * ending
    return settings.base_lr * warmup * factor
