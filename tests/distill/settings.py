"""Configs for tests."""

from __future__ import annotations

from typing import Any

from afdcd.config import embedded_config


def solver_settings(**values: Any) -> Any:
    """An embedded config with these ``SOLVER`` keys and no warm-up."""
    cfg = embedded_config()
    cfg.SOLVER.WARMUP_ITERS = 0
    for name, value in values.items():
        cfg.SOLVER[name] = value
    return cfg
