"""Build a segmentation network by keywords or from a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from afdcd.models.backbones.mit import VARIANTS, MiT
from afdcd.models.backbones.mobilenetv2 import MobileNetV2
from afdcd.models.backbones.registry import BACKBONES, Backbone
from afdcd.models.backbones.resnet import ResNet
from afdcd.models.backbones.staged import STAGES
from afdcd.models.heads.aspp_head import ASPPHead
from afdcd.models.heads.mlp_head import MLPHead
from afdcd.models.heads.psp_head import PSPHead
from afdcd.models.heads.registry import HEADS
from afdcd.models.layers import Norm
from afdcd.models.segmentor import PIXEL_MEAN, PIXEL_STD, SemanticSegmentor
from afdcd.utils.registry import Registry

ARCHITECTURES = {"deeplabv3": ASPPHead, "pspnet": PSPHead, "segformer": MLPHead}


def build_segmentor(
    architecture: str = "deeplabv3",
    backbone: str = "resnet18",
    num_classes: int = 19,
    *,
    output_stride: int | None = None,
    stem: str = "deeplab",
    width_mult: float = 1.0,
    aux_weight: float | None = None,
    hidden_channels: int | None = None,
    norm: Norm = "BN",
    ignore_value: int = 255,
    pixel_mean: Sequence[float] = PIXEL_MEAN,
    pixel_std: Sequence[float] = PIXEL_STD,
) -> SemanticSegmentor:
    """Build one of the paper's networks or a SegFormer, or a variant of one.

    Args:
        architecture: ``deeplabv3``, ``pspnet`` or ``segformer``.
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``mobilenetv2`` or
            ``mit_b0`` to ``mit_b5``.
        num_classes: K.
        output_stride: 8 (published, the default), 16 or 32; MiT has 32 only.
        stem: of a ResNet: ``deeplab`` (three 3x3 convolutions, published) or ``basic`` (one 7x7).
        width_mult: of MobileNetV2's channels. The others take 1 only: build a narrower one with
            `ResNet` and ``res2_channels``, or `MiT` and ``widths``.
        aux_weight: of the auxiliary head on res4, 0 for none; by default 0.4 for DeepLabV3 and
            PSPNet on ResNets and 0 for the others, as published.
        hidden_channels: of the head; by default as published (256 for DeepLabV3 on ResNet-50 and
            -101, a quarter of the backbone's channels for PSPNet on ResNets, 256 for SegFormer on
            B0 and B1, 768 for it on B2 to B5, else 128).
        norm: ``BN``, ``SyncBN`` or a function of the channels; MiT has LayerNorm, whatever it says.
        ignore_value: label of the pixels that don't count.
        pixel_mean, pixel_std: of each input channel, in 0..255.

    Returns:
        the model, with an initialized backbone, in training mode.

    Raises:
        ValueError: an unknown name, or a setting that doesn't apply.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}"
        )
    if width_mult != 1.0 and backbone != "mobilenetv2":
        raise ValueError(f"width_mult is for MobileNetV2; got {width_mult} for {backbone}")
    mit = backbone.removeprefix("mit_") if backbone.startswith("mit_") else ""
    if mit and output_stride not in (None, 32):
        raise ValueError(f"MiT's output_stride is 32; got {output_stride}")
    if output_stride is None:
        output_stride = 32 if mit else 8
    resnet = re.fullmatch(r"resnet(\d+)", backbone)
    if aux_weight is None:
        aux_weight = 0.4 if resnet and architecture != "segformer" else 0.0
    outputs: tuple[str, ...] = ("res4", "res5") if aux_weight else ("res5",)
    if architecture == "segformer":
        outputs = STAGES
    body: Backbone
    if resnet:
        body = ResNet(
            int(resnet[1]), output_stride=output_stride, stem=stem, norm=norm, out_features=outputs
        )
    elif backbone == "mobilenetv2":
        body = MobileNetV2(
            width_mult=width_mult, output_stride=output_stride, norm=norm, out_features=outputs
        )
    elif mit in VARIANTS:
        body = MiT(mit, out_features=outputs)
    else:
        raise ValueError(
            "backbone must be resnet18, resnet34, resnet50, resnet101, mobilenetv2 or mit_b0 to "
            f"mit_b5; got {backbone!r}"
        )
    if hidden_channels is None:
        hidden_channels = _published_channels(architecture, backbone, body)
    extra: dict[str, Any] = {}
    if architecture == "deeplabv3" and output_stride != 8:
        # The same receptive field in pixels as (12, 24, 36) at output stride 8.
        extra["aspp_dilations"] = tuple(d * 8 // output_stride for d in (12, 24, 36))
    head = ARCHITECTURES[architecture](
        body.output_shape(),
        in_features=outputs if architecture == "segformer" else "res5",
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


def _published_channels(architecture: str, backbone: str, body: Backbone) -> int:
    """Hidden channels of a published head; see `build_segmentor`."""
    channels = body.output_shape()["res5"].channels
    if architecture == "segformer":
        return 768 if backbone.startswith("mit_") and backbone not in ("mit_b0", "mit_b1") else 256
    if backbone == "mobilenetv2":
        return 128
    if architecture == "pspnet":
        return channels // 4
    return 256 if channels >= 2048 else 128


def build_segmentor_from_config(cfg: Any) -> SemanticSegmentor:
    """Build the model that a Detectron2 config of a ``SemanticSegmentor`` describes.

    Raises:
        ValueError: the config names a backbone or head that isn't registered, or settings of one
            don't work.
    """
    backbone = _build("MODEL.BACKBONE.NAME", BACKBONES, cfg.MODEL.BACKBONE.NAME, cfg)
    shape = backbone.output_shape()
    head = _build("MODEL.SEM_SEG_HEAD.NAME", HEADS, cfg.MODEL.SEM_SEG_HEAD.NAME, cfg, shape)
    return SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=head,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


def _build(key: str, registry: Registry, name: str, cfg: Any, *arguments: Any) -> Any:
    try:
        kind = registry.get(name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    return kind(**kind.from_config(cfg, *arguments))
