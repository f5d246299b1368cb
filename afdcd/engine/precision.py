"""Automatic mixed precision, as ``SOLVER.AMP`` says."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from afdcd.engine.settings import DTYPES, PrecisionSettings


def autocast(settings: PrecisionSettings, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for a forward pass; the losses switch it off for themselves."""
    return torch.autocast(device.type, dtype=DTYPES[settings.dtype], enabled=settings.enabled)


def gradient_scaler(settings: PrecisionSettings, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling: float16 needs it, bfloat16 and float32 don't."""
    return torch.amp.GradScaler(
        device.type, enabled=settings.enabled and settings.dtype == "float16"
    )
