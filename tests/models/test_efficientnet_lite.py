"""EfficientNet-Lite: sizes, padding, and other codebases' names."""

from __future__ import annotations

import math

import pytest
import torch

from afdcd.models import EfficientNetLite, build_segmentor, count_parameters, load_weights
from afdcd.models.layers import SameConvNorm
from afdcd.models.weights import CheckpointError

# (kernel size, channels, blocks) of each group of variant 0; factors of channels and blocks.
GROUPS = [
    (3, 16, 1),
    (3, 24, 2),
    (5, 40, 2),
    (3, 80, 3),
    (5, 112, 3),
    (5, 192, 4),
    (3, 320, 1),
]
FACTORS = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)]
# timm's, of the whole classifiers.
PARAMETERS = [4652008, 5416680, 6092072, 8197096, 13006568]


def groups_of(variant: int) -> list[tuple[int, int, int]]:
    width, depth = FACTORS[variant]
    found = []
    for number, (kernel, channels, count) in enumerate(GROUPS):
        scaled = channels * width
        rounded = int(scaled + 4) // 8 * 8
        rounded += 8 if rounded < 0.9 * scaled else 0
        blocks = count if number in (0, 6) else math.ceil(count * depth)
        found.append((kernel, rounded, blocks))
    return found


def by_hand(variant: int) -> int:
    """Parameters of the classifier: every convolution and BatchNorm, and 1280 x 1000."""
    total, channels = 3 * 32 * 9 + 64, 32
    for number, (kernel, out, count) in enumerate(groups_of(variant)):
        for _ in range(count):
            hidden = channels if number == 0 else 6 * channels
            if number:
                total += channels * hidden + 2 * hidden
            total += hidden * kernel**2 + 2 * hidden + hidden * out + 2 * out
            channels = out
    return total + channels * 1280 + 2 * 1280 + 1280 * 1000 + 1000


@pytest.mark.parametrize("variant", range(5))
def test_parameters(variant: int):
    backbone = EfficientNetLite(variant)
    channels = backbone.output_shape()["res5"].channels
    classifier = channels * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert count_parameters(backbone) + classifier == by_hand(variant) == PARAMETERS[variant]


def state_of(variant: int, naming: str) -> dict[str, torch.Tensor]:
    """Random entries under timm's or efficientnet_pytorch's names, from the table alone."""
    state: dict[str, torch.Tensor] = {}

    def layer(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        state[f"{conv}.weight"] = torch.rand(shape)
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{entry}"] = torch.rand(shape[0])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    timm = naming == "timm"
    layer(*(("conv_stem", "bn1") if timm else ("_conv_stem", "_bn0")), (32, 3, 3, 3))
    channels, total = 32, 0
    for group, (kernel, out, count) in enumerate(groups_of(variant)):
        for index in range(count):
            start = f"blocks.{group}.{index}." if timm else f"_blocks.{total}."
            hidden = 6 * channels if group else channels
            layers = [
                ("conv_pw", "_expand_conv", "_bn0", (hidden, channels, 1, 1)),
                ("conv_dw", "_depthwise_conv", "_bn1", (hidden, 1, kernel, kernel)),
                ("conv_pwl", "_project_conv", "_bn2", (out, hidden, 1, 1)),
            ]
            if group == 0:  # the block without expansion, whose projection timm calls conv_pw
                layers = [layers[1], ("conv_pw", *layers[2][1:])]
            for number, (theirs, other, norm, shape) in enumerate(layers, 1):
                names = (theirs, f"bn{number}") if timm else (other, norm)
                layer(*(start + name for name in names), shape)
            channels, total = out, total + 1
    layer(*(("conv_head", "bn2") if timm else ("_conv_head", "_bn1")), (1280, channels, 1, 1))
    state["classifier.weight" if timm else "_fc.weight"] = torch.rand(10, 1280)
    return state


# Of variant 2, whose groups have 1, 3, 3, 4, 4, 5 and 1 blocks.
PAIRS = {
    "timm": {
        "bn1.bias": "stem.conv.norm.bias",
        "blocks.0.0.conv_dw.weight": "stem.block.depthwise.weight",
        "blocks.0.0.bn1.weight": "stem.block.depthwise.norm.weight",
        "blocks.0.0.conv_pw.weight": "stem.block.project.weight",
        "blocks.0.0.bn2.bias": "stem.block.project.norm.bias",
        "blocks.1.2.conv_pwl.weight": "res2.2.project.weight",
        "blocks.3.3.bn1.running_var": "res4.3.expand.norm.running_var",
        "blocks.4.0.bn2.weight": "res4.4.depthwise.norm.weight",
        "blocks.5.4.conv_pw.weight": "res5.4.expand.weight",
        "blocks.6.0.bn3.running_mean": "res5.5.project.norm.running_mean",
    },
    "efficientnet_pytorch": {
        "_bn0.bias": "stem.conv.norm.bias",
        "_blocks.0._depthwise_conv.weight": "stem.block.depthwise.weight",
        "_blocks.0._bn1.weight": "stem.block.depthwise.norm.weight",
        "_blocks.0._project_conv.weight": "stem.block.project.weight",
        "_blocks.0._bn2.bias": "stem.block.project.norm.bias",
        "_blocks.3._project_conv.weight": "res2.2.project.weight",
        "_blocks.10._bn0.running_var": "res4.3.expand.norm.running_var",
        "_blocks.11._bn1.weight": "res4.4.depthwise.norm.weight",
        "_blocks.19._expand_conv.weight": "res5.4.expand.weight",
        "_blocks.20._bn2.running_mean": "res5.5.project.norm.running_mean",
    },
}


@pytest.mark.parametrize("variant", range(5))
@pytest.mark.parametrize("naming", PAIRS)
def test_names(naming: str, variant: int):
    state = state_of(variant, naming)
    model = build_segmentor("deeplabv3", f"efficientnet_lite{variant}", 3)
    report = load_weights(model, state)
    assert report.naming == "timm's and efficientnet_pytorch's EfficientNet-Lite"
    loaded = model.backbone.state_dict()
    assert report.loaded == [f"backbone.{name}" for name in loaded]
    head = "conv_head" if naming == "timm" else "_conv_head"
    assert len(report.left_out) == 7 and report.left_out[0].startswith(head)
    assert len(loaded) + 7 == len(state)
    if variant == 2:
        for theirs, ours in PAIRS[naming].items():
            assert torch.equal(loaded[ours], state[theirs]), ours


def test_misfits_are_refused():
    model = build_segmentor("deeplabv3", "efficientnet_lite0", 3)
    for naming in PAIRS:
        with pytest.raises(CheckpointError, match="unexpected"):
            load_weights(model, state_of(1, naming))
        state = state_of(0, naming)
        # With squeeze-and-excitation it is another EfficientNet.
        extra = "blocks.1.0.se.conv_reduce" if naming == "timm" else "_blocks.1._se_reduce"
        with pytest.raises(CheckpointError):
            load_weights(model, state | {f"{extra}.weight": torch.rand(1)})
        del state["blocks.5.3.conv_pw.weight" if naming == "timm" else "_blocks.14._bn0.bias"]
        with pytest.raises(CheckpointError, match=r"1 missing: backbone\.res5\.3\.expand"):
            load_weights(model, state)


def test_same_padding_by_hand():
    """A kernel of ones over 0..3 and 0..4: where TensorFlow and PyTorch look, and where not."""
    conv = SameConvNorm(1, 1, 3, stride=2, norm=lambda _: torch.nn.Identity(), activation=None)
    torch.nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1] = 1  # rows are summed along x only
    for size, expected in ((4, [0 + 1 + 2, 2 + 3]), (5, [0 + 1, 1 + 2 + 3, 3 + 4])):
        x = torch.arange(size).float().repeat(1, 1, 3, 1)
        assert conv(x)[0, 0, 0].tolist() == expected
    # 4 rows are padded by 0 and 1: the middle of the kernel lies on rows 1 and 3.
    x = torch.arange(4).float().view(1, 1, 4, 1)
    assert conv(x)[0, 0, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_same_padding_by_a_naive_loop(size: int, kernel: int, stride: int):
    torch.manual_seed(0)
    conv = SameConvNorm(
        2, 2, kernel, stride=stride, groups=2, norm=lambda _: torch.nn.Identity(), activation=None
    ).double()
    x = torch.randn(1, 2, size, size + 1).double()
    with torch.no_grad():
        out = conv(x)
    rows, columns = (math.ceil(n / stride) for n in x.shape[-2:])
    assert out.shape == (1, 2, rows, columns)
    before = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) // 2 for n in x.shape[-2:]]
    for c in range(2):
        for i in range(rows):
            for j in range(columns):
                total = 0.0
                for u in range(kernel):
                    for v in range(kernel):
                        y, z = i * stride + u - before[0], j * stride + v - before[1]
                        if 0 <= y < x.shape[-2] and 0 <= z < x.shape[-1]:
                            total += float(conv.weight.detach()[c, 0, u, v] * x[0, c, y, z])
                assert out[0, c, i, j].item() == pytest.approx(total, abs=1e-12)


def test_normalization_is_tensorflows():
    for backbone in ("efficientnet_lite0", "mobilenetv3_small"):
        body = build_segmentor("lraspp", backbone, 2).backbone
        norms = [m for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_default_normalization_is_that_of_the_public_weights():
    lite = build_segmentor("deeplabv3", "efficientnet_lite0", 2)
    assert lite.pixel_mean.flatten().tolist() == lite.pixel_std.flatten().tolist() == [127.5] * 3
    v3 = build_segmentor("lraspp", "mobilenetv3_small", 2)
    assert v3.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    given = build_segmentor("lraspp", "mobilenetv3_small", 2, pixel_mean=(1, 2, 3))
    assert given.pixel_mean.flatten().tolist() == [1, 2, 3]
    published = build_segmentor("deeplabv3", "mobilenetv2", 2)
    assert published.pixel_std.flatten().tolist() == [1, 1, 1]


def test_refusals():
    with pytest.raises(ValueError, match="must be from 0 to 4; got 5"):
        EfficientNetLite(5)
    with pytest.raises(ValueError, match="width_mult must be above 0; got 0"):
        EfficientNetLite(0, width_mult=0)
