"""What can't work in the embedded runtime."""

from __future__ import annotations

import logging

import torch

from afdcd.distill import distiller_settings
from afdcd.engine.build import SettingsReader
from afdcd.engine.runtime import Runtime
from afdcd.models import BACKBONES, HEADS
from afdcd.utils.problems import INSTALL_DETECTRON2, constructed, nearest_hint

logger = logging.getLogger(__name__)


def needs_detectron2(run: Runtime) -> list[str]:
    """What the config asks for that only Detectron2 can do, with what there is in its place."""
    model = run.cfg.MODEL
    own = ["SemanticSegmentor"]
    asked = [
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, [*own, "Distiller"]),
        ("INPUT.MAPPER", run.cfg.INPUT.MAPPER, ["scale_crop"]),
    ]
    if run.distils:
        asked.append(("MODEL.DISTILLER.STUDENT", model.DISTILLER.STUDENT, own))
    for key, name, parts in (
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONES),
        ("MODEL.SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, HEADS),
    ):
        if name not in parts:
            asked.append((key, name, parts.names()))
    return [
        f"{key} {name} ({nearest_hint(name, known)})"
        for key, name, known in asked
        if name not in known
    ]


def config_problems(run: Runtime) -> list[str]:
    """Settings that can't work in the embedded runtime, whatever the data."""
    problems = []
    if wanted := needs_detectron2(run):
        problems.append(
            f"the embedded runtime has no {', no '.join(wanted)}. Modules of IMPORTS add backbones "
            f"and heads; anything else takes Detectron2. {INSTALL_DETECTRON2}"
        )
    solver = run.cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        problems.append(
            "SOLVER.LR_SCHEDULER_NAME: the embedded runtime has WarmupPolyLR only; got "
            f"{solver.LR_SCHEDULER_NAME}"
        )
    problems += SettingsReader(run.cfg).training_problems()
    if run.distils:
        constructed(lambda: distiller_settings(run.cfg), problems)
    return problems


def device_problems(num_gpus: int | None) -> list[str]:
    """Whether a GPU was asked for (``--num-gpus``) where there is none."""
    if num_gpus == 1 and not torch.cuda.is_available():
        return ["--num-gpus 1, but PyTorch sees no CUDA device: use --num-gpus 0 for the CPU"]
    return []


def choose_device(wanted: str, num_gpus: int | None) -> torch.device:
    """``MODEL.DEVICE``; the CPU with ``--num-gpus 0``, or (saying so) where there is no GPU."""
    if num_gpus == 0 or wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device(wanted)
    logger.warning(
        "MODEL.DEVICE is %s, but PyTorch sees no such device: running on the CPU", wanted
    )
    return torch.device("cpu")
