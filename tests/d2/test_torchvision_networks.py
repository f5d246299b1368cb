"""MobileNetV3 and LR-ASPP against torchvision's, which the machines with Detectron2 have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large

from afdcd.models import build_segmentor, count_parameters, load_weights

SIZES = ((64, 96), (65, 97), (50, 71))


def with_statistics(model: nn.Module) -> nn.Module:
    """With random statistics, so that every normalization counts; in evaluation mode."""
    torch.manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.01, 0.5)
    return model.eval()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("size", "build"), [("large", mobilenet_v3_large), ("small", mobilenet_v3_small)]
)
def test_classifiers(size: str, build):
    theirs = with_statistics(build())
    ours = build_segmentor("deeplabv3", f"mobilenetv3_{size}", 3, output_stride=32).eval()
    report = load_weights(ours, theirs.state_dict())
    assert len(report.loaded) + len(report.left_out) == len(theirs.state_dict())
    assert count_parameters(ours.backbone) == count_parameters(theirs.features)
    for shape in SIZES:
        x = torch.randn(2, 3, *shape)
        with torch.no_grad():
            close(ours.backbone(x)["res5"], theirs.features(x))


def test_lraspp():
    theirs = with_statistics(
        lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    )
    ours = build_segmentor("lraspp", "mobilenetv3_large", 5, output_stride=16).eval()
    report = load_weights(ours, theirs.state_dict())
    assert (report.part, report.left_out) == ("model", [])
    assert count_parameters(ours) == count_parameters(theirs)
    for shape in SIZES:
        images = torch.rand(2, 3, *shape) * 255
        with torch.no_grad():
            expected = theirs((images - ours.pixel_mean) / ours.pixel_std)["out"]
            found = torch.stack([r["sem_seg"] for r in ours([{"image": i} for i in images])])
        close(found, expected)


def test_deeplabs_backbone():
    theirs = with_statistics(
        deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    )
    ours = build_segmentor("deeplabv3", "mobilenetv3_large", 5, output_stride=16).eval()
    assert load_weights(ours, theirs.state_dict()).part == "backbone"
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        close(ours.backbone(x)["res5"], theirs.backbone(x)["out"])
