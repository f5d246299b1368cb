"""Build a segmentation network by keywords or from a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from afdcd.models.backbones.backbone import StagedBackbone
from afdcd.models.backbones.mobilenetv2 import MobileNetV2
from afdcd.models.backbones.resnet import ResNet
from afdcd.models.heads.aspp_head import ASPPHead
from afdcd.models.heads.psp_head import PSPHead
from afdcd.models.heads.segmentation_head import SegmentationHead
from afdcd.models.layers import Norm
from afdcd.models.segmentor import PIXEL_MEAN, PIXEL_STD, SemanticSegmentor

# Names in MODEL.BACKBONE.NAME and MODEL.SEM_SEG_HEAD.NAME; registered with Detectron2 under these.
BACKBONES: dict[str, type[ResNet] | type[MobileNetV2]] = {
    "build_dilated_resnet_backbone": ResNet,
    "build_dilated_mobilenetv2_backbone": MobileNetV2,
}
HEADS: dict[str, type[SegmentationHead]] = {"ASPPHead": ASPPHead, "PSPHead": PSPHead}
ARCHITECTURES = {"deeplabv3": ASPPHead, "pspnet": PSPHead}


def build_segmentor(
    architecture: str = "deeplabv3",
    backbone: str = "resnet18",
    num_classes: int = 19,
    *,
    output_stride: int = 8,
    stem: str = "deeplab",
    width_mult: float = 1.0,
    aux_weight: float | None = None,
    hidden_channels: int | None = None,
    norm: Norm = "BN",
    ignore_value: int = 255,
    pixel_mean: Sequence[float] = PIXEL_MEAN,
    pixel_std: Sequence[float] = PIXEL_STD,
) -> SemanticSegmentor:
    """Build one of the paper's networks, or a relative of theirs.

    Args:
        architecture: ``deeplabv3`` or ``pspnet``.
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101`` or ``mobilenetv2``.
        num_classes: K.
        output_stride: 8 (published), 16 or 32.
        stem: of a ResNet: ``deeplab`` (three 3x3 convolutions, published) or ``basic`` (one 7x7).
        width_mult: of MobileNetV2's channels. A ResNet takes 1 only: build a narrower one with
            `ResNet` and ``res2_channels``.
        aux_weight: of the auxiliary head on res4, 0 for none; by default 0.4 for ResNets and 0 for
            MobileNetV2, as published.
        hidden_channels: of the head; by default as published (256 for DeepLabV3 on ResNet-50 and
            -101, a quarter of the backbone's channels for PSPNet on ResNets, else 128).
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        ignore_value: label of the pixels that don't count.
        pixel_mean, pixel_std: of each input channel, in 0..255.

    Returns:
        the model, with He-initialized backbone, in training mode.

    Raises:
        ValueError: an unknown name, or a setting that doesn't apply.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}"
        )
    body: StagedBackbone
    if match := re.fullmatch(r"resnet(\d+)", backbone):
        if width_mult != 1.0:
            raise ValueError(f"width_mult is MobileNetV2's; got {width_mult} for {backbone}")
        aux_weight = 0.4 if aux_weight is None else aux_weight
        outputs = ("res4", "res5") if aux_weight else ("res5",)
        body = ResNet(
            int(match[1]), output_stride=output_stride, stem=stem, norm=norm, out_features=outputs
        )
    elif backbone == "mobilenetv2":
        aux_weight = 0.0 if aux_weight is None else aux_weight
        outputs = ("res4", "res5") if aux_weight else ("res5",)
        body = MobileNetV2(
            width_mult=width_mult, output_stride=output_stride, norm=norm, out_features=outputs
        )
    else:
        raise ValueError(
            "backbone must be resnet18, resnet34, resnet50, resnet101 or mobilenetv2; "
            f"got {backbone!r}"
        )
    if hidden_channels is None:
        channels = body.output_shape()["res5"].channels
        if backbone == "mobilenetv2":
            hidden_channels = 128
        elif architecture == "pspnet":
            hidden_channels = channels // 4
        else:
            hidden_channels = 256 if channels >= 2048 else 128
    extra: dict[str, Any] = {}
    if architecture == "deeplabv3" and output_stride != 8:
        # The same reach in pixels as (12, 24, 36) at output stride 8.
        extra["aspp_dilations"] = tuple(d * 8 // output_stride for d in (12, 24, 36))
    head = ARCHITECTURES[architecture](
        body.output_shape(),
        in_features="res5",
        num_classes=num_classes,
        hidden_channels=hidden_channels,
        aux_weight=aux_weight,
        ignore_value=ignore_value,
        norm=norm,
        **extra,
    )
    return SemanticSegmentor(
        backbone=body, sem_seg_head=head, pixel_mean=pixel_mean, pixel_std=pixel_std
    )


def check_freeze_at(cfg: Any) -> None:
    """Raise ValueError where a config freezes stages, which these backbones don't do."""
    if cfg.MODEL.BACKBONE.FREEZE_AT != 0:
        raise ValueError(
            f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}, but "
            f"{cfg.MODEL.BACKBONE.NAME} trains all of its stages: set it to 0"
        )


def build_segmentor_from_config(cfg: Any) -> SemanticSegmentor:
    """Build the model that a Detectron2 config of a ``SemanticSegmentor`` describes.

    Raises:
        ValueError: the config names a backbone or head that this package has no plain form of.
    """
    backbone_name, head_name = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.SEM_SEG_HEAD.NAME
    if backbone_name not in BACKBONES:
        raise ValueError(
            f"MODEL.BACKBONE.NAME {backbone_name!r} is not one of {', '.join(BACKBONES)}"
        )
    if head_name not in HEADS:
        raise ValueError(f"MODEL.SEM_SEG_HEAD.NAME {head_name!r} is not one of {', '.join(HEADS)}")
    check_freeze_at(cfg)
    backbone_type, head_type = BACKBONES[backbone_name], HEADS[head_name]
    backbone = backbone_type(**backbone_type.from_config(cfg))
    head = head_type(**head_type.from_config(cfg, backbone.output_shape()))
    return SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=head,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
