"""Automatic mixed precision, as ``SOLVER.AMP`` says."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def autocast(cfg: Any, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for a forward pass; the losses switch it off for themselves."""
    amp = cfg.SOLVER.AMP
    return torch.autocast(device.type, dtype=DTYPES[amp.DTYPE], enabled=amp.ENABLED)


def gradient_scaler(cfg: Any, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling: float16 needs it, bfloat16 and float32 don't."""
    amp = cfg.SOLVER.AMP
    return torch.amp.GradScaler(device.type, enabled=amp.ENABLED and amp.DTYPE == "float16")
