"""Build a segmentation network by keywords or from a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from afdcd.models.adapters.timm_backbone import FAMILY, TimmBackbone
from afdcd.models.backbones.efficientnet_lite import EfficientNetLite
from afdcd.models.backbones.mit import VARIANTS, MiT
from afdcd.models.backbones.mobilenetv2 import MobileNetV2
from afdcd.models.backbones.mobilenetv3 import LOW_LEVEL, MobileNetV3
from afdcd.models.backbones.registry import BACKBONES, Backbone
from afdcd.models.backbones.resnet import ResNet
from afdcd.models.backbones.staged import STAGES
from afdcd.models.heads.aspp_head import ASPPHead
from afdcd.models.heads.lraspp_head import LRASPPHead
from afdcd.models.heads.mlp_head import MLPHead
from afdcd.models.heads.psp_head import PSPHead
from afdcd.models.heads.registry import HEADS
from afdcd.models.layers import Norm
from afdcd.models.segmentor import PIXEL_MEAN, PIXEL_STD, SemanticSegmentor
from afdcd.utils.registry import Registry

ARCHITECTURES = {
    "deeplabv3": ASPPHead,
    "pspnet": PSPHead,
    "lraspp": LRASPPHead,
    "segformer": MLPHead,
}


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
    pixel_mean: Sequence[float] | None = None,
    pixel_std: Sequence[float] | None = None,
) -> SemanticSegmentor:
    """Build one of the paper's networks, a variant of one, or a network of another paper.

    Args:
        architecture: ``deeplabv3``, ``pspnet``, ``lraspp`` or ``segformer``.
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``mobilenetv2``,
            ``mobilenetv3_large``, ``mobilenetv3_small``, ``efficientnet_lite0`` to 4, ``mit_b0`` to
            ``mit_b5``, or ``timm:NAME`` (see `TimmBackbone`).
        num_classes: K.
        output_stride: 8 (published, the default), 16 or 32; MiT has 32 only.
        stem: of a ResNet: ``deeplab`` (three 3x3 convolutions, published) or ``basic`` (one 7x7).
        width_mult: of the channels of MobileNets and EfficientNets. The others take 1 only: build a
            narrower one with `ResNet` and ``res2_channels``, or `MiT` and ``widths``.
        aux_weight: of the auxiliary head on res4, 0 for none; by default 0.4 for DeepLabV3 and
            PSPNet on ResNets and 0 for the others, as published.
        hidden_channels: of the head; by default as published (256 for DeepLabV3 on ResNet-50 and
            -101, a quarter of the backbone's channels for PSPNet on ResNets, 256 for SegFormer on
            B0 and B1, 768 for it on B2 to B5, else 128).
        norm: ``BN``, ``SyncBN`` or a function of the channels; MiT has LayerNorm, whatever it says.
        ignore_value: label of the pixels that don't count.
        pixel_mean, pixel_std: of each input channel, in 0..255; by default those of the backbone's
            public weights: of BGR images for the published networks' ResNets and MobileNetV2, of
            RGB images for the others.

    Returns:
        the model, with an initialized backbone, in training mode.

    Raises:
        ValueError: an unknown name, or a setting that doesn't apply.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}"
        )
    mit = backbone.removeprefix("mit_") if backbone.startswith("mit_") else ""
    if mit and output_stride not in (None, 32):
        raise ValueError(f"MiT's output_stride is 32; got {output_stride}")
    if output_stride is None:
        output_stride = 32 if mit else 8
    if width_mult != 1.0 and not backbone.startswith(("mobilenet", "efficientnet")):
        raise ValueError(
            "width_mult is for MobileNetV2, MobileNetV3 and EfficientNet-Lite; got "
            f"{width_mult} for {backbone}"
        )
    if aux_weight is None:
        published = architecture in ("deeplabv3", "pspnet") and backbone.startswith("resnet")
        aux_weight = 0.4 if published else 0.0
    in_features = _inputs(architecture, backbone)
    outputs = [in_features] if isinstance(in_features, str) else list(in_features)
    if aux_weight and "res4" not in outputs:
        outputs.insert(-1, "res4")
    common: dict[str, Any] = {"output_stride": output_stride, "norm": norm, "out_features": outputs}
    body: Backbone
    if match := re.fullmatch(r"resnet(\d+)", backbone):
        body = ResNet(int(match[1]), stem=stem, **common)
    elif backbone == "mobilenetv2":
        body = MobileNetV2(width_mult=width_mult, **common)
    elif match := re.fullmatch(r"mobilenetv3_(large|small)", backbone):
        body = MobileNetV3(match[1], width_mult=width_mult, **common)
    elif match := re.fullmatch(r"efficientnet_lite([0-4])", backbone):
        body = EfficientNetLite(int(match[1]), width_mult=width_mult, **common)
    elif mit in VARIANTS:
        body = MiT(mit, out_features=outputs)
    elif backbone.startswith(FAMILY):
        body = TimmBackbone(backbone.removeprefix(FAMILY), output_stride=output_stride)
    else:
        raise ValueError(
            "backbone must be resnet18, resnet34, resnet50, resnet101, mobilenetv2, "
            "mobilenetv3_large, mobilenetv3_small, efficientnet_lite0 to 4, mit_b0 to mit_b5, or "
            f"timm:NAME; got {backbone!r}"
        )
    if hidden_channels is None:
        hidden_channels = _published_channels(architecture, backbone, body)
    extra: dict[str, Any] = {}
    if architecture == "deeplabv3" and output_stride != 8:
        # The same receptive field in pixels as (12, 24, 36) at output stride 8.
        extra["aspp_dilations"] = tuple(d * 8 // output_stride for d in (12, 24, 36))
    head = ARCHITECTURES[architecture](
        body.output_shape(),
        in_features=in_features,
        num_classes=num_classes,
        hidden_channels=hidden_channels,
        aux_weight=aux_weight,
        ignore_value=ignore_value,
        norm=norm,
        **extra,
    )
    if pixel_mean is None:
        pixel_mean = getattr(body, "pixel_mean", PIXEL_MEAN)
    if pixel_std is None:
        pixel_std = getattr(body, "pixel_std", PIXEL_STD)
    return SemanticSegmentor(
        backbone=body, sem_seg_head=head, pixel_mean=pixel_mean, pixel_std=pixel_std
    )


def _inputs(architecture: str, backbone: str) -> str | tuple[str, ...]:
    """The backbone's outputs that a head takes."""
    if architecture == "segformer":
        return STAGES
    if architecture == "lraspp":
        return (LOW_LEVEL if backbone.startswith("mobilenetv3") else "res3", "res5")
    return "res5"


def _published_channels(architecture: str, backbone: str, body: Backbone) -> int:
    """Hidden channels of a published head; see `build_segmentor`."""
    channels = body.output_shape()["res5"].channels
    if architecture == "segformer":
        return 768 if backbone.startswith("mit_") and backbone not in ("mit_b0", "mit_b1") else 256
    if not backbone.startswith("resnet") or architecture == "lraspp":
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
    backbone.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
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
