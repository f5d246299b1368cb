"""What can't work in the embedded runtime."""

from __future__ import annotations

import logging
from typing import Any

import torch

from afdcd.checks import weights
from afdcd.distill import distiller_settings
from afdcd.embedded.build import teacher_config
from afdcd.engine.build import training_problems
from afdcd.models import BACKBONES, HEADS
from afdcd.utils.problems import INSTALL_DETECTRON2, constructed

logger = logging.getLogger(__name__)


def needs_detectron2(cfg: Any) -> list[str]:
    """What the config asks for that only Detectron2 can do."""
    wanted = []
    model = cfg.MODEL
    if model.META_ARCHITECTURE not in ("SemanticSegmentor", "Distiller"):
        wanted.append(f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE}")
    if model.META_ARCHITECTURE == "Distiller" and model.DISTILLER.STUDENT != "SemanticSegmentor":
        wanted.append(f"MODEL.DISTILLER.STUDENT {model.DISTILLER.STUDENT}")
    if cfg.INPUT.MAPPER != "scale_crop":
        wanted.append(f"INPUT.MAPPER {cfg.INPUT.MAPPER}")
    if model.BACKBONE.NAME not in BACKBONES:
        wanted.append(f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME}")
    if model.SEM_SEG_HEAD.NAME not in HEADS:
        wanted.append(f"MODEL.SEM_SEG_HEAD.NAME {model.SEM_SEG_HEAD.NAME}")
    return wanted


def config_problems(cfg: Any) -> list[str]:
    """Settings that can't work in the embedded runtime, whatever the data."""
    problems = []
    if wanted := needs_detectron2(cfg):
        problems.append(
            f"{', '.join(wanted)}: the embedded runtime has only the backbones "
            f"{', '.join(BACKBONES.names())} and the heads {', '.join(HEADS.names())} (IMPORTS "
            f"adds to them). The rest takes Detectron2. {INSTALL_DETECTRON2}"
        )
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        problems.append(
            "SOLVER.LR_SCHEDULER_NAME: the embedded runtime has WarmupPolyLR only; got "
            f"{solver.LR_SCHEDULER_NAME}"
        )
    problems += training_problems(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        constructed(lambda: distiller_settings(cfg), problems)
    return problems


def teacher_problems(cfg: Any) -> list[str]:
    """What is wrong with ``MODEL.DISTILLER.TEACHER``."""
    return weights.teacher_problems(cfg, teacher_config, config_problems)


def device_problems(num_gpus: int | None) -> list[str]:
    """Whether a GPU was asked for (``--num-gpus``) where there is none."""
    if num_gpus == 1 and not torch.cuda.is_available():
        return ["--num-gpus 1, but PyTorch sees no CUDA device: use --num-gpus 0 for the CPU"]
    return []


def choose_device(cfg: Any, num_gpus: int | None) -> torch.device:
    """``MODEL.DEVICE``; the CPU with ``--num-gpus 0``, or (saying so) where there is no GPU."""
    if num_gpus == 0 or cfg.MODEL.DEVICE == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device(cfg.MODEL.DEVICE)
    logger.warning(
        "MODEL.DEVICE is %s, but PyTorch sees no such device: running on the CPU", cfg.MODEL.DEVICE
    )
    return torch.device("cpu")
