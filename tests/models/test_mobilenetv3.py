"""MobileNetV3 and LR-ASPP: sizes, and torchvision's names."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from afdcd.models import (
    LRASPPHead,
    MobileNetV3,
    ShapeSpec,
    build_segmentor,
    count_parameters,
    load_weights,
)
from afdcd.models.heads.segmentation_head import segmentation_cross_entropy
from afdcd.models.weights import CheckpointError

# torchvision's blocks, from number 1 on: kernel size, hidden channels, output, squeezed channels.
BLOCKS = {
    "large": [
        (3, 16, 16, 0),
        (3, 64, 24, 0),
        (3, 72, 24, 0),
        (5, 72, 40, 24),
        (5, 120, 40, 32),
        (5, 120, 40, 32),
        (3, 240, 80, 0),
        (3, 200, 80, 0),
        (3, 184, 80, 0),
        (3, 184, 80, 0),
        (3, 480, 112, 120),
        (3, 672, 112, 168),
        (5, 672, 160, 168),
        (5, 960, 160, 240),
        (5, 960, 160, 240),
    ],
    "small": [
        (3, 16, 16, 8),
        (3, 72, 24, 0),
        (3, 88, 24, 0),
        (5, 96, 40, 24),
        (5, 240, 40, 64),
        (5, 240, 40, 64),
        (5, 120, 48, 32),
        (5, 144, 48, 40),
        (5, 288, 96, 72),
        (5, 576, 96, 144),
        (5, 576, 96, 144),
    ],
}
# torchvision's parameters of the whole classifier, less those of its two linear layers.
PARAMETERS = {
    "large": 5483032 - (960 * 1280 + 1280 + 1280 * 1000 + 1000),
    "small": 2542856 - (576 * 1024 + 1024 + 1024 * 1000 + 1000),
}
LAST = {"large": 960, "small": 576}
# Their entries -> ours.
PAIRS = {
    "large": {
        "0.1.bias": "stem.conv.norm.bias",
        "1.block.1.0.weight": "stem.block.project.weight",
        "3.block.2.1.weight": "res2.1.project.norm.weight",
        "4.block.2.fc1.bias": "res3.0.squeeze_excite.reduce.bias",
        "4.block.3.0.weight": "res3.0.project.weight",
        "12.block.1.1.running_var": "res4.5.depthwise.norm.running_var",
        "15.block.0.0.weight": "res5.2.expand.weight",
        "16.1.running_mean": "res5.3.norm.running_mean",
    },
    "small": {
        "1.block.0.0.weight": "res2.0.depthwise.weight",
        "1.block.1.fc2.weight": "res2.0.squeeze_excite.expand.weight",
        "1.block.2.1.bias": "res2.0.project.norm.bias",
        "3.block.2.0.weight": "res3.1.project.weight",
        "8.block.2.fc1.weight": "res4.4.squeeze_excite.reduce.weight",
        "12.0.weight": "res5.3.weight",
    },
}


def torchvision_state(size: str, prefix: str) -> dict[str, torch.Tensor]:
    """Random entries under torchvision's names, from the table alone."""
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, out_channels: int, in_channels: int, kernel: int) -> None:
        state[f"{prefix}{name}.0.weight"] = torch.rand(out_channels, in_channels, kernel, kernel)
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{prefix}{name}.1.{entry}"] = torch.rand(out_channels)
        state[f"{prefix}{name}.1.num_batches_tracked"] = torch.tensor(7)

    layer("0", 16, 3, 3)
    channels = 16
    for number, (kernel, hidden, out, squeezed) in enumerate(BLOCKS[size], 1):
        index = 0
        if hidden != channels:
            layer(f"{number}.block.0", hidden, channels, 1)
            index = 1
        layer(f"{number}.block.{index}", hidden, 1, kernel)
        if squeezed:
            index += 1
            for name, shape in (("fc1", (squeezed, hidden)), ("fc2", (hidden, squeezed))):
                state[f"{prefix}{number}.block.{index}.{name}.weight"] = torch.rand(*shape, 1, 1)
                state[f"{prefix}{number}.block.{index}.{name}.bias"] = torch.rand(shape[0])
        layer(f"{number}.block.{index + 1}", out, hidden, 1)
        channels = out
    layer(str(len(BLOCKS[size]) + 1), LAST[size], channels, 1)
    return state


def lraspp_head_state(classes: int) -> dict[str, torch.Tensor]:
    state = {
        "classifier.cbr.0.weight": torch.rand(128, 960, 1, 1),
        "classifier.scale.1.weight": torch.rand(128, 960, 1, 1),
        "classifier.low_classifier.weight": torch.rand(classes, 40, 1, 1),
        "classifier.low_classifier.bias": torch.rand(classes),
        "classifier.high_classifier.weight": torch.rand(classes, 128, 1, 1),
        "classifier.high_classifier.bias": torch.rand(classes),
    }
    for entry in ("weight", "bias", "running_mean", "running_var"):
        state[f"classifier.cbr.1.{entry}"] = torch.rand(128)
    return state | {"classifier.cbr.1.num_batches_tracked": torch.tensor(7)}


@pytest.mark.parametrize("size", BLOCKS)
def test_parameters(size: str):
    state = torchvision_state(size, "")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    by_names = sum(v.numel() for k, v in state.items() if not k.endswith(statistics))
    assert count_parameters(MobileNetV3(size)) == by_names == PARAMETERS[size]


def test_parameters_of_lraspp():
    """torchvision says 3221538 of lraspp_mobilenet_v3_large, with 21 classes."""
    model = build_segmentor("lraspp", "mobilenetv3_large", 21, output_stride=16)
    assert count_parameters(model) == 3221538


@pytest.mark.parametrize("size", BLOCKS)
def test_torchvisions_classifiers(size: str):
    state = torchvision_state(size, "features.")
    state |= {"classifier.0.weight": torch.rand(2, 2), "classifier.3.bias": torch.rand(2)}
    model = build_segmentor("deeplabv3", f"mobilenetv3_{size}", 3)
    report = load_weights(model, state)
    assert report.naming == f"torchvision's MobileNetV3-{size.title()}"
    assert report.left_out == ["classifier.0.weight", "classifier.3.bias"]
    loaded = model.backbone.state_dict()
    assert report.loaded == [f"backbone.{name}" for name in loaded]
    assert len(loaded) == len(state) - 2
    for theirs, ours in PAIRS[size].items():
        assert torch.equal(loaded[ours], state[f"features.{theirs}"]), ours


def test_torchvisions_segmentation_networks():
    body = torchvision_state("large", "backbone.")
    state = body | lraspp_head_state(5)
    model = build_segmentor("lraspp", "mobilenetv3_large", 5, output_stride=16)
    report = load_weights(model, state)
    assert (report.part, report.naming) == ("model", "torchvision's LR-ASPP")
    assert report.loaded == list(model.state_dict()) and not report.left_out
    loaded = model.state_dict()
    for theirs, ours in {
        "backbone.4.block.1.1.bias": "backbone.res3.0.depthwise.norm.bias",
        "classifier.cbr.0.weight": "sem_seg_head.fuse.weight",
        "classifier.cbr.1.running_var": "sem_seg_head.fuse.norm.running_var",
        "classifier.scale.1.weight": "sem_seg_head.attention.weight",
        "classifier.low_classifier.bias": "sem_seg_head.predictor.low.bias",
        "classifier.high_classifier.weight": "sem_seg_head.predictor.high.weight",
    }.items():
        assert torch.equal(loaded[ours], state[theirs]), ours
    with pytest.raises(CheckpointError, match=r"predictor.low.weight is \(5, .*NUM_CLASSES"):
        load_weights(build_segmentor("lraspp", "mobilenetv3_large", 4, output_stride=16), state)
    # Of DeepLabV3 the backbone is taken.
    state = body | {
        "classifier.0.convs.0.0.weight": torch.rand(2),
        "aux_classifier.4.bias": body["backbone.0.1.bias"],
    }
    report = load_weights(build_segmentor("deeplabv3", "mobilenetv3_large", 5), state)
    assert report.part == "backbone" and len(report.left_out) == 2


@pytest.mark.parametrize(
    ("size", "backbone", "message"),
    [
        ("small", "mobilenetv3_large", "missing"),
        ("large", "mobilenetv3_small", "unexpected"),
        ("large", "mobilenetv2", "unexpected"),
    ],
)
def test_misfits_are_refused(size: str, backbone: str, message: str):
    model = build_segmentor("deeplabv3", backbone, 3)
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, torchvision_state(size, "features."))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("architecture", ["deeplabv3", "lraspp"])
@pytest.mark.parametrize(
    "backbone", ["mobilenetv3_large", "mobilenetv3_small", "efficientnet_lite0"]
)
def test_output_strides(architecture: str, backbone: str, output_stride: int):
    model = build_segmentor(
        architecture, backbone, 3, output_stride=output_stride, width_mult=0.25
    ).eval()
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 65, 97))
        (result,) = model([{"image": torch.zeros(3, 50, 71)}])
    assert features["res5"].shape[-2:] == (64 // output_stride + 1, 96 // output_stride + 1)
    if architecture == "lraspp":
        assert features[model.sem_seg_head.low_feature].shape[-2:] == (9, 13)
    for name, shape in model.backbone.output_shape().items():
        assert features[name].shape[1] == shape.channels
    assert result["sem_seg"].shape == (3, 50, 71)


def test_the_low_level_is_the_first_blocks_output():
    backbone = MobileNetV3("large", width_mult=0.25, out_features=("res3.0", "res3")).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = backbone(x)
        first = backbone.res3[0](backbone.res2(backbone.stem(x)))
        torch.testing.assert_close(maps["res3.0"], first)
        torch.testing.assert_close(maps["res3"], backbone.res3[2](backbone.res3[1](first)))
    assert list(backbone.output_shape()) == ["res3.0", "res3"]
    with pytest.raises(ValueError, match=r"takes some of res2, res3, res4, res5, res3\.0; got"):
        MobileNetV3("large", out_features=("res4.0",))
    with pytest.raises(ValueError, match="must be large or small; got 'medium'"):
        MobileNetV3("medium")


def head_of_two_levels() -> LRASPPHead:
    shape = {"res3": ShapeSpec(channels=2, stride=8), "res5": ShapeSpec(channels=4, stride=16)}
    head = LRASPPHead(shape, in_features=("res3", "res5"), num_classes=3, hidden_channels=2)
    return head.double()


def test_lraspp_by_a_naive_loop():
    torch.manual_seed(0)
    head = head_of_two_levels().eval()
    low, high = torch.randn(2, 2, 4, 6).double(), torch.randn(2, 4, 2, 3).double()
    with torch.no_grad():
        logits = head.layers({"res3": low, "res5": high})
        projected = head.fuse(high)
        for n in range(2):
            mean = high[n].sum((1, 2)) / 6
            factor = 1 / (1 + torch.exp(-head.attention.weight[:, :, 0, 0] @ mean))
            scaled = torch.stack([projected[n, c] * factor[c] for c in range(2)])
            for y in range(4):
                for x in range(6):
                    # Pixel centres at half the resolution: 0.25 before and after a centre.
                    value = bilinear(scaled, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
                    predictor = head.predictor
                    expected = predictor.low.weight[:, :, 0, 0] @ low[n, :, y, x]
                    expected = expected + predictor.high.weight[:, :, 0, 0] @ value
                    expected = expected + predictor.low.bias + predictor.high.bias
                    torch.testing.assert_close(logits[n, :, y, x], expected)


def bilinear(maps: torch.Tensor, y: float, x: float) -> torch.Tensor:
    height, width = maps.shape[-2:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = maps[:, top, left] * (1 - dx) + maps[:, top, right] * dx
    lower = maps[:, bottom, left] * (1 - dx) + maps[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def test_lraspp_learns_the_logits_that_it_predicts():
    torch.manual_seed(0)
    head = head_of_two_levels()
    features = {"res3": torch.randn(2, 2, 4, 6).double(), "res5": torch.randn(2, 4, 2, 3).double()}
    targets = torch.randint(0, 3, (2, 32, 48))
    head.train()
    head.fuse.norm.eval()
    _, losses = head(features, targets)
    head.eval()
    predicted, _ = head(features)
    assert predicted.shape == (2, 3, 32, 48)
    expected = F.cross_entropy(predicted, targets)
    torch.testing.assert_close(losses["loss_sem_seg"], expected)
    # With corners on corners it would be another.
    other = segmentation_cross_entropy(head.layers(features), targets)
    assert not torch.allclose(other, expected, rtol=1e-3)


def test_lraspp_takes_two_levels():
    shape = {"res3": ShapeSpec(channels=2, stride=8), "res5": ShapeSpec(channels=4, stride=16)}
    with pytest.raises(ValueError, match=r"takes two backbone outputs .*; got \['res5'\]"):
        LRASPPHead(shape, in_features=["res5"], num_classes=3)
    with pytest.raises(ValueError, match=r"'res3\.0', but the backbone returns res3, res5"):
        LRASPPHead(shape, in_features=["res3.0", "res5"], num_classes=3)
