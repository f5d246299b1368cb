"""Losses in a test's config."""

from __future__ import annotations

from typing import Any

from afdcd.config import merge_content

# Small maps of few channels.
SMALL = {"POOL": 0, "GROUPS": 8}


def give_losses(cfg: Any, **losses: Any) -> Any:
    """The config with these losses, by label, merged into those that it has."""
    merge_content(cfg, {"MODEL": {"DISTILLER": {"LOSSES": losses}}}, "test")
    return cfg
