"""The names of MobileNetV3 and EfficientNet-Lite in other codebases' checkpoints."""

from __future__ import annotations

import re
from itertools import accumulate

from afdcd.models.weights.rules import Rule

# Blocks of each stage of MobileNetV3, the last convolution among them. torchvision counts them from
# 1, the block of the large network's stem included.
_MOBILENETV3_STAGES = {
    "large": {"res2": 2, "res3": 3, "res4": 6, "res5": 4},
    "small": {"res2": 1, "res3": 2, "res4": 5, "res5": 4},
}
# Blocks of each group of EfficientNet-Lite0, 1 and 2, 3, and 4, and the groups' stages.
_LITE_DEPTHS = (
    (1, 2, 2, 3, 3, 4, 1),
    (1, 3, 3, 4, 4, 5, 1),
    (1, 3, 3, 5, 5, 6, 1),
    (1, 4, 4, 6, 6, 8, 1),
)
_LITE_STAGES = ("stem", "res2", "res3", "res4", "res4", "res5", "res5")


def is_mobilenetv3(names: frozenset[str], size: str, prefix: str) -> bool:
    """Whether these are torchvision's names of a MobileNetV3 below ``prefix``."""
    last = sum(_MOBILENETV3_STAGES[size].values()) + (size == "large")
    return {f"{prefix}{last}.0.weight", f"{prefix}1.block.0.0.weight"} <= names


def mobilenetv3_rules(size: str, prefix: str) -> tuple[Rule, ...]:
    """Rules for torchvision's names: a number for each block, and for each layer in it.

    Args:
        size: ``large`` or ``small``.
        prefix: ``features.`` of the classifier's file, ``backbone.`` of a segmentation network's.
    """
    blocks = {}
    number = 1
    if size == "large":
        blocks[number] = "stem.block"
        number += 1
    for stage, count in _MOBILENETV3_STAGES[size].items():
        for index in range(count):
            blocks[number + index] = f"{stage}.{index}"
        number += count
    last = number - 1

    def layer(match: re.Match[str]) -> str:
        block, layer, part = int(match[1]), int(match[2]), match[3]
        if part.startswith("fc"):
            name = "squeeze_excite." + {"fc1": "reduce.", "fc2": "expand."}[part]
        else:
            # The first block has no expanding convolution, so its layers begin with the next one.
            kind = ("expand", "depthwise", "project")[min(layer + (block == 1), 2)]
            name = kind + {"0": ".", "1": ".norm."}[part]
        return f"backbone.{blocks.get(block, match[0])}.{name}"

    start = "^" + re.escape(prefix)
    return (
        (rf"{start}0\.0\.", "backbone.stem.conv."),
        (rf"{start}0\.1\.", "backbone.stem.conv.norm."),
        (rf"{start}{last}\.0\.", f"backbone.{blocks[last]}."),
        (rf"{start}{last}\.1\.", f"backbone.{blocks[last]}.norm."),
        (rf"{start}(\d+)\.block\.(\d+)\.([01]|fc[12])\.", layer),
    )


# torchvision's LR-ASPP.
LRASPP_RULES: tuple[Rule, ...] = (
    (r"^classifier\.cbr\.0\.", "sem_seg_head.fuse."),
    (r"^classifier\.cbr\.1\.", "sem_seg_head.fuse.norm."),
    (r"^classifier\.scale\.1\.", "sem_seg_head.attention."),
    (r"^classifier\.(low|high)_classifier\.", r"sem_seg_head.predictor.\1."),
)


def _numbers(names: frozenset[str], pattern: str) -> set[tuple[int, ...]]:
    """The numbers that a pattern finds in names."""
    found = (re.match(pattern, name) for name in names)
    return {tuple(map(int, match.groups())) for match in found if match}


def _lite_depths(names: frozenset[str]) -> tuple[int, ...] | None:
    """Blocks by group, where the names are an EfficientNet-Lite's; else None."""
    if any(".se." in name or "_se_" in name for name in names):
        return None  # an EfficientNet with squeeze-and-excitation
    if flat := _numbers(names, r"_blocks\.(\d+)\._depthwise_conv\."):
        return next((d for d in _LITE_DEPTHS if sum(d) == len(flat)), None)
    blocks = _numbers(names, r"blocks\.(\d+)\.(\d+)\.conv_dw\.")
    depths = tuple(sum(block[0] == group for block in blocks) for group in range(7))
    return depths if depths in _LITE_DEPTHS else None


def is_efficientnet_lite(names: frozenset[str]) -> bool:
    """Whether these are timm's or efficientnet_pytorch's names of an EfficientNet-Lite."""
    return _lite_depths(names) is not None


def efficientnet_lite_rules(names: frozenset[str]) -> tuple[Rule, ...]:
    """Rules for timm's names, with blocks numbered by group, and for efficientnet_pytorch's."""
    depths = _lite_depths(names) or _LITE_DEPTHS[0]
    groups = [(group, index) for group, count in enumerate(depths) for index in range(count)]
    starts = dict(enumerate(accumulate(depths, initial=0)))

    def block(group: int, index: int) -> str:
        stage = _LITE_STAGES[group]
        before = starts[group] - starts[_LITE_STAGES.index(stage)]
        return "backbone.stem.block." if stage == "stem" else f"backbone.{stage}.{index + before}."

    def timm_block(match: re.Match[str]) -> str:
        return block(int(match[1]), int(match[2]))

    def flat_block(match: re.Match[str]) -> str:
        return block(*groups[int(match[1])])

    here = r"^(backbone\.(?:stem\.block|res\d\.\d+)\.)"
    return (
        (r"^_?(conv_head|bn1|fc|classifier)\.", None)
        if any(name.startswith("_blocks.") for name in names)
        else (r"^(conv_head|bn2|classifier)\.", None),
        (r"^_?conv_stem\.", "backbone.stem.conv."),
        (r"^(_bn0|bn1)\.", "backbone.stem.conv.norm."),
        (r"^blocks\.(\d+)\.(\d+)\.", timm_block),
        (r"^_blocks\.(\d+)\.", flat_block),
        # The stem's block has no expanding convolution: timm numbers what it has from 1.
        (r"^(backbone\.stem\.block\.)conv_pw\.", r"\1project."),
        (r"^(backbone\.stem\.block\.)bn1\.", r"\1depthwise.norm."),
        (r"^(backbone\.stem\.block\.)bn2\.", r"\1project.norm."),
        (rf"{here}(conv_pw|_expand_conv)\.", r"\1expand."),
        (rf"{here}(bn1|_bn0)\.", r"\1expand.norm."),
        (rf"{here}(conv_dw|_depthwise_conv)\.", r"\1depthwise."),
        (rf"{here}(bn2|_bn1)\.", r"\1depthwise.norm."),
        (rf"{here}(conv_pwl|_project_conv)\.", r"\1project."),
        (rf"{here}(bn3|_bn2)\.", r"\1project.norm."),
    )
