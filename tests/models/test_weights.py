"""Loading checkpoints of other codebases, and refusing those that don't fit."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from afdcd.models import build_segmentor, load_weights
from afdcd.models.weights import CheckpointError, read_checkpoint

from helpers import reference

NAMES = json.loads((reference.DATA / "state_dict_names.json").read_text())

# (state-dict names file, network that it fits, entries checked by hand: theirs -> ours)
FITTING = [
    (
        "torchvision_resnet18",
        {"backbone": "resnet18", "stem": "basic"},
        {
            "conv1.weight": "backbone.stem.conv1.weight",
            "bn1.running_mean": "backbone.stem.conv1.norm.running_mean",
            "layer2.0.downsample.0.weight": "backbone.res3.0.shortcut.weight",
            "layer2.0.downsample.1.bias": "backbone.res3.0.shortcut.norm.bias",
            "layer4.1.bn2.weight": "backbone.res5.1.conv2.norm.weight",
        },
    ),
    (
        "torchvision_resnet50",
        {"backbone": "resnet50", "stem": "basic"},
        {"layer3.5.conv3.weight": "backbone.res4.5.conv3.weight"},
    ),
    (
        "torchvision_resnet101",
        {"backbone": "resnet101", "stem": "basic"},
        {"layer3.22.bn3.bias": "backbone.res4.22.conv3.norm.bias"},
    ),
    (
        "timm_resnet18",
        {"backbone": "resnet18", "stem": "basic"},
        {"layer1.1.conv2.weight": "backbone.res2.1.conv2.weight"},
    ),
    (
        "detectron2_resnet50",
        {"backbone": "resnet50", "stem": "basic"},
        {"res2.0.shortcut.norm.weight": "backbone.res2.0.shortcut.norm.weight"},
    ),
    (
        "torchvision_mobilenet_v2",
        {"backbone": "mobilenetv2"},
        {
            "features.0.1.bias": "backbone.stem.conv.norm.bias",
            "features.1.conv.0.0.weight": "backbone.stem.block.depthwise.weight",
            "features.1.conv.1.weight": "backbone.stem.block.project.weight",
            "features.2.conv.0.0.weight": "backbone.res2.0.expand.weight",
            "features.6.conv.1.1.bias": "backbone.res3.2.depthwise.norm.bias",
            "features.11.conv.2.weight": "backbone.res4.4.project.weight",
            "features.17.conv.3.running_var": "backbone.res5.3.project.norm.running_var",
        },
    ),
    ("torchvision_mobilenet_v2_0.5", {"backbone": "mobilenetv2", "width_mult": 0.5}, {}),
    (
        "timm_mobilenetv2_100",
        {"backbone": "mobilenetv2"},
        {
            "bn1.weight": "backbone.stem.conv.norm.weight",
            "blocks.0.0.conv_pw.weight": "backbone.stem.block.project.weight",
            "blocks.0.0.bn2.bias": "backbone.stem.block.project.norm.bias",
            "blocks.1.0.conv_pw.weight": "backbone.res2.0.expand.weight",
            "blocks.4.2.bn2.bias": "backbone.res4.6.depthwise.norm.bias",
            "blocks.6.0.conv_pwl.weight": "backbone.res5.3.project.weight",
        },
    ),
    ("timm_mobilenetv2_050", {"backbone": "mobilenetv2", "width_mult": 0.5}, {}),
]


def random_state(name: str) -> dict[str, torch.Tensor]:
    return {entry: torch.rand(shape) for entry, shape in NAMES[name]}


@pytest.mark.parametrize(("source", "network", "pairs"), FITTING)
def test_imagenet_backbones(source: str, network: dict, pairs: dict):
    model = build_segmentor(num_classes=3, **network)
    head_before = model.sem_seg_head.predictor.weight.clone()
    state = random_state(source)
    report = load_weights(model, state)
    backbone = [n for n in model.state_dict() if n.startswith("backbone.")]
    if source.startswith("detectron2"):  # FrozenBN-era files have no batch counters
        backbone = [n for n in backbone if not n.endswith("num_batches_tracked")]
        report.loaded = [n for n in report.loaded if not n.endswith("num_batches_tracked")]
    assert report.part == "backbone"
    assert report.loaded == backbone
    assert all(name.split(".")[0] in OUTSIDE for name in report.left_out) or all(
        name.startswith("features.18.") or name.startswith("classifier") for name in report.left_out
    )
    loaded = model.state_dict()
    for theirs, ours in pairs.items():
        torch.testing.assert_close(loaded[ours], state[theirs])
    torch.testing.assert_close(model.sem_seg_head.predictor.weight, head_before)


OUTSIDE = {"fc", "classifier", "conv_head", "bn2"}


@pytest.mark.slow
def test_every_entry_lands_once():
    """No two entries of a checkpoint are given one name."""
    for source, network, _ in FITTING:
        model = build_segmentor(num_classes=3, **network)
        report = load_weights(model, random_state(source))
        assert len(report.loaded) + len(report.left_out) == len(NAMES[source]) or source.startswith(
            "detectron2"
        )


@pytest.mark.parametrize(
    ("source", "network", "message"),
    [
        ("torchvision_resnet18", {"backbone": "resnet50", "stem": "basic"}, "another shape"),
        ("torchvision_resnet50", {"backbone": "resnet101", "stem": "basic"}, "missing"),
        ("torchvision_resnet101", {"backbone": "resnet50", "stem": "basic"}, "unexpected"),
        ("torchvision_resnet18", {"backbone": "resnet18"}, "another shape"),  # deep stem
        ("timm_resnet18d", {"backbone": "resnet18"}, "unexpected"),
        ("timm_mobilenetv2_050", {"backbone": "mobilenetv2"}, "another shape"),
        ("torchvision_mobilenet_v2", {"backbone": "resnet18"}, "missing"),
    ],
)
def test_misfits_are_refused(source: str, network: dict, message: str):
    model = build_segmentor(num_classes=3, **network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, random_state(source))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)


def test_wrong_class_count():
    model = build_segmentor(num_classes=11)
    state = reference.published_state_dict("deeplabv3_resnet18")
    with pytest.raises(CheckpointError, match=r"predictor.weight is \(19, .*NUM_CLASSES"):
        load_weights(model, state)
    report = load_weights(model, state, part="backbone")
    assert report.part == "backbone"
    torch.testing.assert_close(
        model.backbone.stem.conv1.weight.data, state["pretrained.conv1.weight"]
    )


def test_auxiliary_head_may_be_left_out():
    model = build_segmentor(num_classes=19, aux_weight=0)
    report = load_weights(model, reference.published_state_dict("deeplabv3_resnet18"))
    assert report.left_out and all(name.startswith("auxlayer.") for name in report.left_out)
    assert len(report.loaded) == len(model.state_dict())


def test_missing_auxiliary_head_is_refused():
    state = reference.published_state_dict("deeplabv3_resnet18")
    state = {name: value for name, value in state.items() if not name.startswith("auxlayer.")}
    with pytest.raises(CheckpointError, match=r"missing: sem_seg_head.aux.conv.weight"):
        load_weights(build_segmentor(num_classes=19), state)


def test_own_checkpoint_in_every_container(tmp_path):
    source = build_segmentor("pspnet", "mobilenetv2", 5)
    for index, wrapped in enumerate(
        (
            source.state_dict(),
            {"model": source.state_dict(), "iteration": 3},
            {"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}},
        )
    ):
        path = tmp_path / f"{index}.pth"
        torch.save(wrapped, path)
        model = build_segmentor("pspnet", "mobilenetv2", 5)
        assert load_weights(model, path).part == "model"
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, source.state_dict()[name], msg=name)


def test_detectron2_pickle(tmp_path):
    path = tmp_path / "R-50.pkl"
    arrays = {n: np.zeros(shape, np.float32) for n, shape in NAMES["detectron2_resnet50"]}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision"}))
    model = build_segmentor(backbone="resnet50", stem="basic", num_classes=2)
    assert load_weights(model, path).part == "backbone"
    assert model.backbone.stem.conv1.weight.abs().sum() == 0


def test_pickles_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("this must not be called",)

    for name in ("attack.pkl", "attack.pth"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"model": Attack()}))
        with pytest.raises(CheckpointError, match="holds more than tensors"):
            read_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_files(tmp_path, keep: int):
    path = tmp_path / "model.pth"
    torch.save({"model": {"backbone.weight": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated"):
        read_checkpoint(path)


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*model_best.*holds model_final"):
        read_checkpoint(tmp_path / "model_best.pth")


def test_unknown_names():
    with pytest.raises(CheckpointError, match="no known codebase"):
        load_weights(build_segmentor(num_classes=2), {"encoder.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no tensors"):
        load_weights(build_segmentor(num_classes=2), {})
