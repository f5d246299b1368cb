"""The networks and the distiller in Detectron2's registries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from detectron2.modeling import Backbone as Detectron2Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.utils.registry import Registry as Detectron2Registry
from torch import nn

from afdcd.d2.config import trained_architecture
from afdcd.d2.weights import load_model_weights
from afdcd.models import BACKBONES, HEADS, Backbone, Head, MiT
from afdcd.utils.registry import Registry

logger = logging.getLogger(__name__)


# Detectron2 asks whether a backbone is one of its own; ours have its attributes.
Detectron2Backbone.register(Backbone)


def _offer(ours: Registry, theirs: Detectron2Registry, build: Callable[..., nn.Module]) -> None:
    """Make a registry's parts, and those that join it later, known to Detectron2 by their names.

    Args:
        ours: the registry.
        theirs: Detectron2's of the same kind.
        build: called with a class of ours and with what Detectron2 calls its own parts with.
    """

    def construct(name: str, *arguments: Any) -> nn.Module:
        return build(ours.get(name), *arguments)

    # Looked up by name at each call: a part may be registered anew.
    ours.tell_names(lambda name: theirs._do_register(name, partial(construct, name)))


def _build_backbone(kind: type[Backbone], cfg: Any, input_shape: ShapeSpec) -> Backbone:
    backbone = kind(**_any_norm(kind.from_config(cfg)))
    backbone.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    if cfg.MODEL.SEM_SEG_HEAD.NAME not in HEADS and not backbone.size_divisibility:
        # Detectron2's heads add maps of several strides, which takes whole ones.
        backbone.size_divisibility = max(s.stride or 1 for s in backbone.output_shape().values())
    return backbone


def _build_head(kind: type[Head], cfg: Any, input_shape: dict[str, ShapeSpec]) -> Head:
    return kind(**_any_norm(kind.from_config(cfg, input_shape)))


def _any_norm(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments, with any of Detectron2's normalizations by its name."""
    if "norm" not in arguments:
        return arguments
    return {**arguments, "norm": partial(get_norm, arguments["norm"])}


_offer(BACKBONES, BACKBONE_REGISTRY, _build_backbone)
_offer(HEADS, SEM_SEG_HEADS_REGISTRY, _build_head)


@BACKBONE_REGISTRY.register()
def build_mit_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """MiT (``MODEL.MIT``) under Detectron2's feature pyramid (``MODEL.FPN``)."""
    return FPN(
        bottom_up=_build_backbone(MiT, cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_student(cfg: Any) -> nn.Module:
    """The model that is trained for use: of ``MODEL.DISTILLER.STUDENT`` for a distiller.

    On ``MODEL.DEVICE``, without its weights.
    """
    return META_ARCH_REGISTRY.get(trained_architecture(cfg))(cfg).to(cfg.MODEL.DEVICE)


def build_teacher(cfg: Any) -> nn.Module:
    """The model of a teacher's config with its weights, on ``MODEL.DEVICE``.

    Raises:
        CheckpointError: they can't be loaded.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DISTILLER.STUDENT = cfg.MODEL.META_ARCHITECTURE
    teacher = build_student(cfg)
    load_model_weights(teacher, cfg.MODEL.WEIGHTS, complete=True)
    return teacher
