"""The same numbers as other SegFormers, where those are installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from afdcd.models import MiT, MLPHead, SemanticSegmentor, build_segmentor, load_weights

WIDTHS, DEPTHS = (8, 16, 40, 64), (1, 2, 1, 1)
IMAGES = (2, 3, 64, 96)


def randomize(model: nn.Module) -> None:
    """Make every entry differ from how it is initialized, so that each counts."""
    generator = torch.Generator().manual_seed(0)
    for name, entry in model.state_dict().items():
        if "var" in name:
            entry.copy_(torch.rand(entry.shape, generator=generator) + 0.5)
        elif entry.is_floating_point():
            entry.add_(torch.randn(entry.shape, generator=generator) * 0.1)


def ours(hidden: int) -> SemanticSegmentor:
    backbone = MiT("b0", widths=WIDTHS, depths=DEPTHS, norm_eps=1e-5)
    head = MLPHead(
        backbone.output_shape(),
        in_features=("res2", "res3", "res4", "res5"),
        num_classes=5,
        hidden_channels=hidden,
    )
    return SemanticSegmentor(backbone=backbone, sem_seg_head=head).eval()


def logits_of(model: SemanticSegmentor, x: torch.Tensor) -> torch.Tensor:
    return model.sem_seg_head.layers(model.backbone(x))


@pytest.fixture
def theirs():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=5, hidden_sizes=list(WIDTHS), depths=list(DEPTHS), decoder_hidden_size=12
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    randomize(model)
    return model


@pytest.mark.parametrize("size", [(64, 96), (50, 71)])
@torch.no_grad()
def test_transformers_in_memory(theirs, size: tuple[int, int]):
    model = ours(12)
    report = load_weights(model, theirs.state_dict(), part="model")
    assert len(report.loaded) == len(model.state_dict()) and not report.left_out
    x = torch.randn(2, 3, *size)
    expected = theirs(x).logits
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits_of(model, x), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_transformers_as_saved(theirs, tmp_path: Path):
    theirs.save_pretrained(tmp_path)
    model = ours(12)
    report = load_weights(model, tmp_path / "model.safetensors", part="model")
    assert len(report.loaded) == len(model.state_dict()) and not report.left_out
    x = torch.randn(IMAGES)
    torch.testing.assert_close(logits_of(model, x), theirs(x).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["SegformerModel", "SegformerForImageClassification"])
@torch.no_grad()
def test_transformers_backbones(kind: str, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS))
    source = getattr(transformers, kind)(config).eval()
    randomize(source)
    source.save_pretrained(tmp_path)
    x = torch.randn(IMAGES)
    base = getattr(source, "segformer", source)
    expected = base(x, output_hidden_states=True).hidden_states
    for checkpoint in (source.state_dict(), tmp_path / "model.safetensors"):
        model = ours(12)
        report = load_weights(model, checkpoint)
        assert report.part == "backbone"
        assert len(report.left_out) == (0 if kind == "SegformerModel" else 2)
        for found, maps in zip(model.backbone(x).values(), expected, strict=True):
            torch.testing.assert_close(found, maps, rtol=0, atol=1e-5)


@torch.no_grad()
def test_segmentation_models_pytorch():
    smp = pytest.importorskip("segmentation_models_pytorch")
    source = smp.Segformer("mit_b0", encoder_weights=None, classes=5).eval()
    randomize(source)
    model = build_segmentor("segformer", "mit_b0", 5).eval()
    report = load_weights(model, source.state_dict(), part="model")
    assert len(report.loaded) == len(model.state_dict()) and not report.left_out
    x = torch.randn(IMAGES)
    expected = source.segmentation_head[0](source.decoder(source.encoder(x)))
    scale = expected.abs().max()
    assert scale > 0.1
    found = logits_of(model, x)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
