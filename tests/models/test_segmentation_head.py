"""The task loss and the heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from afdcd.models import ASPPHead, PSPHead, ResNet, build_segmentor
from afdcd.models.heads.segmentation_head import segmentation_cross_entropy
from afdcd.models.layers import ShapeSpec

from helpers import reference

VECTORS = reference.load("losses")
TASKS = sorted({key.split("/")[1] for key in VECTORS if key.startswith("task/")})
MANIFEST = reference.manifest("losses")["task"]


@pytest.mark.parametrize("case", TASKS)
def test_published_task_loss(case: str):
    c = MANIFEST[case]
    labels = torch.from_numpy(VECTORS[f"task/{case}/labels"].astype(np.int64))
    labels = torch.where(labels == c["ignore_index"], 255, labels)
    logits = torch.from_numpy(reference.normal(f"{case}/logits", logits_shape(case), 3)).double()
    logits.requires_grad_()
    loss = segmentation_cross_entropy(logits, labels)
    expected = float(VECTORS[f"task/{case}/loss"])
    (gradient,) = torch.autograd.grad(loss, logits)
    if np.isnan(expected):  # every pixel is ignored
        assert loss == 0 and not gradient.any()
        return
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-9)
    key = f"task/{case}/grad/logits"
    np.testing.assert_allclose(gradient.norm().item(), VECTORS[f"{key}/l2"], rtol=1e-8)
    loss32 = segmentation_cross_entropy(logits.detach().float(), labels)
    np.testing.assert_allclose(loss32.item(), VECTORS[f"task/{case}/loss_f32"], rtol=1e-5)


def logits_shape(case: str) -> tuple[int, ...]:
    c = MANIFEST[case]
    return (c["B"], c["C"], c["h"], c["w"])


def test_all_ignored():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (50, 71)])
@pytest.mark.parametrize("architecture", ["deeplabv3", "pspnet"])
def test_predictions_have_the_size_asked_for(architecture: str, size: tuple[int, int]):
    model = build_segmentor(architecture, "mobilenetv2", 4, width_mult=0.25).eval()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        (plain,) = model([{"image": image}])
        (larger,) = model([{"image": image, "height": 100, "width": 120}])
    assert plain["sem_seg"].shape == (4, *size)
    assert larger["sem_seg"].shape == (4, 100, 120)


def test_a_batch_of_sizes_is_padded_and_cropped():
    model = build_segmentor("deeplabv3", "mobilenetv2", 4, width_mult=0.25).eval()
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in ((40, 64), (48, 56))]
    with torch.no_grad():
        results = model([{"image": image} for image in images])
    assert [r["sem_seg"].shape for r in results] == [(4, 40, 64), (4, 48, 56)]


def test_training_returns_weighted_losses():
    model = build_segmentor(num_classes=4)
    inputs = [
        {
            "image": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8),
            "sem_seg": torch.randint(0, 4, (32, 32)),
        }
        for _ in range(2)
    ]
    assert set(model(inputs)) == {"loss_sem_seg", "loss_sem_seg_aux"}
    with pytest.raises(ValueError, match="training needs labels"):
        model([{"image": inputs[0]["image"]}] * 2)
    for architecture in ("deeplabv3", "pspnet"):
        with pytest.raises(ValueError, match="at least 2 images per GPU; got 1"):
            build_segmentor(architecture, num_classes=4)(inputs[:1])


def test_auxiliary_loss_is_weighted():
    torch.manual_seed(0)
    model = build_segmentor(num_classes=3, aux_weight=0.4)
    features = model.backbone(torch.randn(2, 3, 32, 32))
    targets = torch.randint(0, 3, (2, 32, 32))
    head = model.sem_seg_head
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    unweighted = segmentation_cross_entropy(head.aux(features["res4"]), targets)
    for weight in (0.4, 0.8):
        head.aux_weight = weight
        _, losses = head(features, targets)
        torch.testing.assert_close(losses["loss_sem_seg_aux"], weight * unweighted)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenetv2"])
def test_output_strides(backbone: str, output_stride: int):
    model = build_segmentor(backbone=backbone, num_classes=2, output_stride=output_stride).eval()
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 65, 97))
    assert features["res5"].shape[-2:] == (64 // output_stride + 1, 96 // output_stride + 1)
    assert model.backbone.output_shape()["res5"].stride == output_stride


def test_width_multiplier_follows_the_rounding_rule():
    channels = {
        width: build_segmentor(backbone="mobilenetv2", width_mult=width, num_classes=2)
        .backbone.output_shape()["res5"]
        .channels
        for width in (0.25, 0.35, 0.5, 1.0, 1.4)
    }
    assert channels == {0.25: 80, 0.35: 112, 0.5: 160, 1.0: 320, 1.4: 448}


def test_heads_take_plain_dicts_of_another_librarys_backbone():
    shape = {"res5": ShapeSpec(channels=16, stride=8)}
    for head in (
        ASPPHead(shape, in_features="res5", num_classes=3, hidden_channels=8),
        PSPHead(shape, in_features="res5", num_classes=3, hidden_channels=8),
    ):
        logits, losses = head.eval()({"res5": torch.zeros(1, 16, 6, 7)})
        assert logits.shape == (1, 3, 48, 56) and losses == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"architecture": "unet"},
            "architecture must be one of deeplabv3, pspnet, lraspp, segformer",
        ),
        ({"backbone": "vgg16"}, "backbone must be resnet18"),
        ({"backbone": "resnet20"}, "depth must be one of 18, 34, 50, 101; got 20"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32"),
        ({"stem": "deep"}, "stem must be one of deeplab, basic"),
        ({"width_mult": 0.5}, "width_mult is for MobileNetV2"),
        ({"backbone": "mobilenetv2", "width_mult": 0}, "width_mult must be above 0"),
        ({"norm": "LN"}, "norm must be one of BN, SyncBN"),
    ],
)
def test_refusals(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_segmentor(**options)


def test_a_head_names_the_output_it_misses():
    backbone = ResNet(18, out_features=("res5",))
    with pytest.raises(ValueError, match=r"needs the backbone output 'res4'.*returns res5"):
        ASPPHead(backbone.output_shape(), in_features="res5", num_classes=2, aux_weight=0.4)
