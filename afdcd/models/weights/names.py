"""Which codebase's names a checkpoint has, and the rules that translate them to Detectron2's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from afdcd.models.weights.mobile_names import (
    LRASPP_RULES,
    efficientnet_lite_rules,
    is_efficientnet_lite,
    is_mobilenetv3,
    mobilenetv3_rules,
)
from afdcd.models.weights.rules import NUM, NameFormat, Rule
from afdcd.models.weights.segformer import SEGFORMER_FORMATS

# Where torchvision's flat list of MobileNetV2 blocks is cut into stages.
_MOBILENET_STAGES = ((2, "res2"), (4, "res3"), (7, "res4"), (14, "res5"), (18, None))
# timm's groups of blocks, and how many blocks of the same stage come before each.
_TIMM_STAGES = {1: ("res2", 0), 2: ("res3", 0), 3: ("res4", 0), 4: ("res4", 4), 5: ("res5", 0)}
_TIMM_STAGES[6] = ("res5", 3)


def _mobilenet_block(index: int) -> str:
    start, stage = 2, "res2"
    for first, name in _MOBILENET_STAGES:
        if index >= first and name is not None:
            start, stage = first, name
    return f"{stage}.{index - start}"


def _timm_block(match: re.Match[str]) -> str:
    stage, before = _TIMM_STAGES[int(match[1])]
    return f"backbone.{stage}.{int(match[2]) + before}."


def _resnet_rules(prefix: str) -> tuple[Rule, ...]:
    def stage(match: re.Match[str]) -> str:
        return f"backbone.res{int(match[1]) + 1}.{match[2]}."

    return (
        (rf"^{prefix}conv{NUM}\.(?=weight$)", r"backbone.stem.conv\1."),
        (rf"^{prefix}bn{NUM}\.", r"backbone.stem.conv\1.norm."),
        (rf"^{prefix}layer{NUM}\.{NUM}\.", stage),
        (rf"^{prefix}fc\.", None),
        (r"(res\d\.\d+\.)bn(\d)\.", r"\1conv\2.norm."),
        (r"(res\d\.\d+\.)downsample\.0\.", r"\1shortcut."),
        (r"(res\d\.\d+\.)downsample\.1\.", r"\1shortcut.norm."),
    )


def _flat_mobilenet_rules(prefix: str) -> tuple[Rule, ...]:
    """``features.N.conv.K`` with one number per layer, as in the published networks."""

    def block(match: re.Match[str]) -> str:
        layer = {0: "expand.", 1: "expand.norm.", 3: "depthwise.", 4: "depthwise.norm."}
        layer |= {6: "project.", 7: "project.norm."}
        number = int(match[2])
        return f"backbone.{_mobilenet_block(int(match[1]))}.{layer.get(number, match[0])}"

    return (
        (rf"^{prefix}features\.0\.0\.", "backbone.stem.conv."),
        (rf"^{prefix}features\.0\.1\.", "backbone.stem.conv.norm."),
        (rf"^{prefix}features\.1\.conv\.0\.", "backbone.stem.block.depthwise."),
        (rf"^{prefix}features\.1\.conv\.1\.", "backbone.stem.block.depthwise.norm."),
        (rf"^{prefix}features\.1\.conv\.3\.", "backbone.stem.block.project."),
        (rf"^{prefix}features\.1\.conv\.4\.", "backbone.stem.block.project.norm."),
        (rf"^{prefix}features\.18\.", None),
        (rf"^{prefix}features\.{NUM}\.conv\.{NUM}\.", block),
        (rf"^{prefix}classifier\.", None),
    )


def _nested_mobilenet_rules() -> tuple[Rule, ...]:
    """torchvision: convolution and BatchNorm of a layer share a number."""

    def block(match: re.Match[str]) -> str:
        layer = {"0.0": "expand.", "0.1": "expand.norm.", "1.0": "depthwise."}
        layer |= {"1.1": "depthwise.norm.", "2": "project.", "3": "project.norm."}
        return f"backbone.{_mobilenet_block(int(match[1]))}.{layer[match[2]]}"

    return (
        (r"^features\.0\.0\.", "backbone.stem.conv."),
        (r"^features\.0\.1\.", "backbone.stem.conv.norm."),
        (r"^features\.1\.conv\.0\.0\.", "backbone.stem.block.depthwise."),
        (r"^features\.1\.conv\.0\.1\.", "backbone.stem.block.depthwise.norm."),
        (r"^features\.1\.conv\.1\.", "backbone.stem.block.project."),
        (r"^features\.1\.conv\.2\.", "backbone.stem.block.project.norm."),
        (r"^features\.18\.", None),
        (rf"^features\.{NUM}\.conv\.([01]\.[01]|[23])\.", block),
        (r"^classifier\.", None),
    )


_TIMM_MOBILENET_RULES: tuple[Rule, ...] = (
    (r"^conv_stem\.", "backbone.stem.conv."),
    (r"^bn1\.", "backbone.stem.conv.norm."),
    (r"^blocks\.0\.0\.conv_dw\.", "backbone.stem.block.depthwise."),
    (r"^blocks\.0\.0\.bn1\.", "backbone.stem.block.depthwise.norm."),
    (r"^blocks\.0\.0\.conv_pw\.", "backbone.stem.block.project."),
    (r"^blocks\.0\.0\.bn2\.", "backbone.stem.block.project.norm."),
    (r"^blocks\.([1-6])\.(\d+)\.", _timm_block),
    (r"^(conv_head|bn2|classifier)\.", None),
    (r"(res\d\.\d+\.)conv_pw\.", r"\1expand."),
    (r"(res\d\.\d+\.)bn1\.", r"\1expand.norm."),
    (r"(res\d\.\d+\.)conv_dw\.", r"\1depthwise."),
    (r"(res\d\.\d+\.)bn2\.", r"\1depthwise.norm."),
    (r"(res\d\.\d+\.)conv_pwl\.", r"\1project."),
    (r"(res\d\.\d+\.)bn3\.", r"\1project.norm."),
)

# The published heads; the backbones' prefix is "pretrained.".
_PUBLISHED_HEAD_RULES: tuple[Rule, ...] = (
    (r"^head\.aspp\.b0\.0\.", "sem_seg_head.aspp.convs.0."),
    (r"^head\.aspp\.b0\.1\.", "sem_seg_head.aspp.convs.0.norm."),
    (rf"^head\.aspp\.b{NUM}\.block\.0\.", r"sem_seg_head.aspp.convs.\1."),
    (rf"^head\.aspp\.b{NUM}\.block\.1\.", r"sem_seg_head.aspp.convs.\1.norm."),
    (r"^head\.aspp\.b4\.gap\.1\.", "sem_seg_head.aspp.pool.1."),
    (r"^head\.aspp\.b4\.gap\.2\.", "sem_seg_head.aspp.pool.1.norm."),
    (r"^head\.aspp\.project\.0\.", "sem_seg_head.aspp.project."),
    (r"^head\.aspp\.project\.1\.", "sem_seg_head.aspp.project.norm."),
    (
        rf"^head\.psp\.conv{NUM}\.0\.",
        lambda m: f"sem_seg_head.pyramid.convs.{int(m[1]) - 1}.",
    ),
    (
        rf"^head\.psp\.conv{NUM}\.1\.",
        lambda m: f"sem_seg_head.pyramid.convs.{int(m[1]) - 1}.norm.",
    ),
    (r"^head\.block\.0\.", "sem_seg_head.fuse."),
    (r"^head\.block\.1\.", "sem_seg_head.fuse.norm."),
    (r"^head\.(block\.4|classifier)\.", "sem_seg_head.predictor."),
    (r"^auxlayer\.block\.0\.", "sem_seg_head.aux.conv."),
    (r"^auxlayer\.block\.1\.", "sem_seg_head.aux.conv.norm."),
    (r"^auxlayer\.block\.4\.", "sem_seg_head.aux.predictor."),
)

# Tried in this order; the first that recognises the names is used.
FORMATS = (
    *SEGFORMER_FORMATS,  # some of which begin with "backbone.", too
    NameFormat(
        "torchvision's LR-ASPP",
        lambda names: (
            is_mobilenetv3(names, "large", "backbone.") and "classifier.cbr.0.weight" in names
        ),
        mobilenetv3_rules("large", "backbone.") + LRASPP_RULES,
    ),
    NameFormat(
        "torchvision's DeepLabV3 on MobileNetV3, whose head differs",
        partial(is_mobilenetv3, size="large", prefix="backbone."),
        ((r"^(aux_)?classifier\.", None), *mobilenetv3_rules("large", "backbone.")),
    ),
    *(
        NameFormat(
            f"torchvision's MobileNetV3-{size.title()}",
            partial(is_mobilenetv3, size=size, prefix="features."),
            ((r"^classifier\.", None), *mobilenetv3_rules(size, "features.")),
        )
        for size in ("large", "small")
    ),
    NameFormat(
        "afdcd",
        lambda names: any(n.startswith(("backbone.", "sem_seg_head.")) for n in names),
        (),
    ),
    NameFormat(
        "the published networks",
        lambda names: any(n.startswith("pretrained.") for n in names),
        _PUBLISHED_HEAD_RULES
        + _flat_mobilenet_rules(r"pretrained\.net\.")
        + _resnet_rules(r"pretrained\."),
    ),
    NameFormat(
        "Detectron2's ImageNet backbones",
        lambda names: {"stem.conv1.weight", "res2.0.conv1.weight"} <= names,
        ((r"^(stem\.)?(fc|fc1000|linear)\.", None), (r"^(stem|res\d)\.", r"backbone.\1.")),
    ),
    NameFormat(
        "timm's and efficientnet_pytorch's EfficientNet-Lite",
        is_efficientnet_lite,
        rules_of=efficientnet_lite_rules,
    ),
    NameFormat(
        "timm's MobileNetV2",
        lambda names: "conv_stem.weight" in names and "blocks.0.0.conv_pw.weight" in names,
        _TIMM_MOBILENET_RULES,
    ),
    NameFormat(
        "torchvision's MobileNetV2",
        lambda names: "features.1.conv.0.0.weight" in names,
        _nested_mobilenet_rules(),
    ),
    NameFormat(
        "a MobileNetV2 with flat layer numbers",
        lambda names: "features.1.conv.0.weight" in names,
        _flat_mobilenet_rules(""),
    ),
    NameFormat(
        "torchvision's and timm's ResNets",
        lambda names: "layer1.0.conv1.weight" in names,
        _resnet_rules(""),
    ),
)


def recognise(names: Iterable[str]) -> NameFormat | None:
    """The naming that these state-dict names follow, or None."""
    names = frozenset(names)
    found = next((f for f in FORMATS if f.recognises(names)), None)
    if found is None or found.rules_of is None:
        return found
    return found._replace(rules=found.rules_of(names))
