"""Parts of a network that aren't trained must be loaded from somewhere."""

from __future__ import annotations

from afdcd.engine.runtime import Runtime
from afdcd.models import BACKBONES
from afdcd.models.backbones.staged import StagedBackbone


def frozen_problems(run: Runtime) -> list[str]:
    """Whether a training that starts anew freezes random weights."""
    backbone = run.cfg.MODEL.BACKBONE
    if backbone.FREEZE_AT not in range(1, 6) or run.weights or backbone.NAME not in BACKBONES:
        return []
    if not issubclass(BACKBONES.get(backbone.NAME), StagedBackbone):
        return []  # it trains whole, or refuses to be frozen
    return [
        f"MODEL.BACKBONE.FREEZE_AT {backbone.FREEZE_AT} keeps the first parts of {backbone.NAME} "
        "as they are loaded, but MODEL.WEIGHTS is empty, so they would stay random: name weights "
        "there, or set FREEZE_AT to 0"
    ]
