"""The networks and the distiller in Detectron2's registries."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
)
from detectron2.utils import comm
from torch import nn

from afdcd.d2.config import teacher_config, trained_architecture
from afdcd.d2.weights import load_model_weights
from afdcd.distill import Distiller, build_distiller
from afdcd.models.backbones.mobilenetv2 import MobileNetV2
from afdcd.models.backbones.resnet import ResNet
from afdcd.models.build import check_freeze_at
from afdcd.models.heads.aspp_head import ASPPHead
from afdcd.models.heads.psp_head import PSPHead

logger = logging.getLogger(__name__)


class DilatedResNet(ResNet, Backbone):
    """`ResNet` as a Detectron2 backbone."""


class DilatedMobileNetV2(MobileNetV2, Backbone):
    """`MobileNetV2` as a Detectron2 backbone."""


def _build(kind: type[Any], cfg: Any, *args: Any) -> Any:
    """Construct from a config, with any of Detectron2's normalizations."""
    arguments = kind.from_config(cfg, *args)
    return kind(**{**arguments, "norm": partial(get_norm, arguments["norm"])})


@BACKBONE_REGISTRY.register()
def build_dilated_resnet_backbone(cfg: Any, input_shape: ShapeSpec) -> DilatedResNet:
    """`ResNet` from ``MODEL.RESNETS`` and ``MODEL.BACKBONE``."""
    check_freeze_at(cfg)
    return _build(DilatedResNet, cfg)


@BACKBONE_REGISTRY.register()
def build_dilated_mobilenetv2_backbone(cfg: Any, input_shape: ShapeSpec) -> DilatedMobileNetV2:
    """`MobileNetV2` from ``MODEL.MOBILENETV2`` and ``MODEL.BACKBONE``."""
    check_freeze_at(cfg)
    return _build(DilatedMobileNetV2, cfg)


# Detectron2 calls a head with (cfg, input_shape), ours take keywords.
SEM_SEG_HEADS_REGISTRY._do_register("ASPPHead", partial(_build, ASPPHead))
SEM_SEG_HEADS_REGISTRY._do_register("PSPHead", partial(_build, PSPHead))


def build_student(cfg: Any) -> nn.Module:
    """The model that is trained for use: of ``MODEL.DISTILLER.STUDENT`` for a distiller.

    On ``MODEL.DEVICE``, without its weights.
    """
    return META_ARCH_REGISTRY.get(trained_architecture(cfg))(cfg).to(cfg.MODEL.DEVICE)


def build_teacher(cfg: Any) -> tuple[Any, nn.Module]:
    """The teacher's config, and its model with weights, on ``MODEL.DEVICE``.

    Raises:
        ConfigError, CheckpointError: it can't be built or loaded.
    """
    teacher_cfg = teacher_config(cfg)
    teacher_cfg.MODEL.DISTILLER.STUDENT = teacher_cfg.MODEL.META_ARCHITECTURE
    teacher = build_student(teacher_cfg)
    load_model_weights(teacher, teacher_cfg.MODEL.WEIGHTS, complete=True)
    return teacher_cfg, teacher


def _build_distiller(cfg: Any) -> Distiller:
    """The meta-architecture ``Distiller``."""
    student = build_student(cfg)
    teacher_cfg, teacher = build_teacher(cfg)
    return build_distiller(
        cfg,
        student,
        teacher,
        teacher_format=teacher_cfg.INPUT.FORMAT,
        seed=max(cfg.SEED, 0),
        part=(comm.get_rank(), comm.get_world_size()),
    ).to(torch.device(cfg.MODEL.DEVICE))


META_ARCH_REGISTRY._do_register("Distiller", _build_distiller)
