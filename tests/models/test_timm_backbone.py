"""Backbones of timm: names, strides, sizes, weights, and errors without a timm that works."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from afdcd.models import BACKBONES, TimmBackbone, build_segmentor, load_weights
from afdcd.models.adapters.timm_backbone import synchronised
from afdcd.models.weights import CheckpointError


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"there is no module timm: pip install -e '\.\[timm\]'"):
        build_segmentor("deeplabv3", "timm:resnet18", 3)


def test_with_a_torchvision_that_does_not_fit(monkeypatch, tmp_path):
    """As PyTorch and torchvision say it, where they don't belong together."""
    (tmp_path / "timm.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist\\nsecond line")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ValueError, match="timm, which can't be imported") as caught:
        build_segmentor("deeplabv3", "timm:resnet18", 3)
    message = str(caught.value)
    assert "(RuntimeError: operator torchvision::nms does not exist)" in message
    assert f"which must be the one that belongs to PyTorch {torch.__version__}." in message


# Model, output stride -> strides by name.
STRIDES = [
    ("test_resnet", 32, {"res2": 4, "res3": 8, "res4": 16, "res5": 32}),
    ("test_resnet", 8, {"res2": 4, "res3": 8, "res4": 8, "res5": 8}),
    ("test_convnext", 16, {"res2": 4, "res3": 8, "res4": 16, "res5": 16}),
    ("test_efficientnet", 8, {"res2": 4, "res3": 8, "res4": 8, "res5": 8}),
    ("pvt_v2_b0", 32, {"res2": 4, "res3": 8, "res4": 16, "res5": 32}),
    ("test_vit", 16, {"res3": 16, "res4": 16, "res5": 16}),
    ("mambaout_femto", 32, {"res2": 4, "res3": 8, "res4": 16, "res5": 32}),  # N, h, w, C
]


@pytest.mark.parametrize(("name", "output_stride", "strides"), STRIDES)
def test_maps_of_images_of_any_size(timm, name: str, output_stride: int, strides: dict):
    backbone = TimmBackbone(name, output_stride=output_stride).eval()
    shapes = backbone.output_shape()
    assert {key: shape.stride for key, shape in shapes.items()} == strides
    for height, width in ((64, 96), (50, 71)):
        with torch.no_grad():
            maps = backbone(torch.rand(2, 3, height, width))
        assert list(maps) == list(strides) and maps.image_size == (height, width)
        for key, stride in strides.items():
            size = (-(-height // stride), -(-width // stride))
            assert maps[key].shape == (2, shapes[key].channels, *size)
            assert maps[key].is_contiguous()


def test_values_are_timms(timm):
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", output_stride=8).eval()
    x = torch.rand(1, 3, 64, 96)
    plain = timm.create_model("test_resnet", features_only=True, output_stride=8).eval()
    plain.load_state_dict(backbone.body.state_dict())
    with torch.no_grad():
        maps, expected = backbone(x), plain(x)
        for name, value in zip(maps, expected[-4:], strict=True):
            torch.testing.assert_close(maps[name], value)
        # Of an odd size: as of the image with 0 at the bottom and right, without what is there.
        maps = backbone(x[..., :60, :90])
        padded = plain(nn.functional.pad(x[..., :60, :90], (0, 6, 0, 4)))
        torch.testing.assert_close(maps["res5"], padded[-1][..., :8, :12])


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_timms_own_files(timm, name: str):
    whole = timm.create_model(name)
    stride = 16 if name == "test_vit" else 32
    model = build_segmentor("deeplabv3", f"timm:{name}", 3, output_stride=stride)
    report = load_weights(model, whole.state_dict())
    backbone = [entry for entry in model.state_dict() if entry.startswith("backbone.")]
    assert (report.part, report.naming) == ("backbone", f"timm's {name}")
    assert report.loaded == backbone
    assert {entry.split(".")[0] for entry in report.left_out} <= {
        *("fc", "head", "norm", "fc_norm", "classifier", "conv_head", "bn2")
    }
    # The same maps as timm's whole network gives.
    whole.eval()
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, intermediates_only=True)[-1]
        torch.testing.assert_close(model.eval().backbone(x)["res5"], expected)
    # Its own checkpoint is read as any other's.
    again = build_segmentor("deeplabv3", f"timm:{name}", 3, output_stride=stride)
    assert load_weights(again, model.state_dict()).part == "model"
    state = whole.state_dict()
    del state[next(iter(state))]
    with pytest.raises(CheckpointError, match="1 missing"):
        load_weights(model, state)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("pvt_v2_b0", 8, r"can't have output stride 8: .*\[4, 8, 16, 32\].*to 32$"),
        ("test_vit", 8, r"can't have output stride 8: .*\[16, 16, 16\].*to 16$"),
        ("hrnet_w18_small", 8, r"can't have output stride 8"),
        ("levit_128s", 64, r"doesn't take an image of 128x192 pixels"),
        ("resnet81", 32, r"timm has no model 'resnet81'; did you mean resnet"),
    ],
)
def test_refusals(timm, name: str, stride: int, message: str):
    with pytest.raises(ValueError, match=message):
        build_segmentor("deeplabv3", f"timm:{name}", 3, output_stride=stride)


def test_width_is_timms():
    with pytest.raises(ValueError, match=r"width_mult is for .*; got 0\.5 for timm:resnet18"):
        build_segmentor("deeplabv3", "timm:resnet18", 3, width_mult=0.5)


def test_weights_that_cannot_be_fetched(timm, monkeypatch):
    def fails(*arguments, **settings):
        raise OSError("no connection")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fails)
    with pytest.raises(ValueError, match=r"OSError: no connection.*MODEL\.TIMM\.PRETRAINED False"):
        TimmBackbone("test_resnet", pretrained=True)


def test_normalization_is_timms(timm):
    model = build_segmentor("lraspp", "timm:test_efficientnet", 3, output_stride=16)
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def test_synchronised_batchnorm_keeps_its_activation(timm):
    model = build_segmentor("deeplabv3", "timm:test_efficientnet", 3)
    before = [
        type(m.act) for m in model.modules() if isinstance(m, nn.BatchNorm2d) and hasattr(m, "act")
    ]
    model = synchronised(model)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert before == [type(m.act) for m in norms if hasattr(m, "act")]
    plain = synchronised(build_segmentor("deeplabv3", "mobilenetv2", 3, width_mult=0.25))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())


def test_the_family_is_registered():
    assert "timm:anything" in BACKBONES and BACKBONES.get("timm:anything") is TimmBackbone
    assert "tim:anything" not in BACKBONES
