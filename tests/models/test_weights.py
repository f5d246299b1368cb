"""Loading checkpoints of other codebases, and refusing those that don't fit."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from afdcd.models import build_segmentor, load_weights
from afdcd.models.weights import CheckpointError, model_entries, read_checkpoint

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

    path = tmp_path / "attack.pth"
    for protocol in range(5):
        path.write_bytes(pickle.dumps({"model": Attack()}, protocol))
        refused(path, "holds an object of builtins.print, which could run code")
    for form in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        torch.save({"model": Attack()}, path, **form)
        refused(path, "holds an object of builtins.print, which could run code")


def refused(path: Path, *parts: str) -> None:
    """The message has these parts and the file's name, and nothing of a library's own text."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "\x1b" not in message
    assert "weights_only" not in message
    for part in parts:
        assert part in message


class Config:
    """Of some trainer."""


def test_classes_that_a_pickle_wants_are_named(tmp_path):
    path = tmp_path / "model.pth"
    state = {"weight": torch.zeros(2)}
    name = f"{Config.__module__}.Config"
    for form in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        torch.save({"model": state, "config": Config()}, path, **form)
        refused(path, f"holds an object of {name},", "state_dict() alone by torch.save")
    torch.save({"model": state, "names": np.array([Config()], object)}, path)
    refused(path, f"holds an object of {name},")
    torch.save(torch.nn.Sequential(torch.nn.ReLU()), path)
    refused(path, "holds an object of torch.nn.modules.container.Sequential")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


FOREIGN = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "page": (b"\n<!DOCTYPE html>\n<html>", "web page (HTML)"),
    "page without type": (b"<HTML><body>", "web page (HTML)"),
    "nothing": (b"", "empty"),
    "JSON": (b'{"weight_map": {}}', "JSON text"),
    "text": ("Größe: 5\n".encode(), "text file, which begins 'Größe: 5'"),
    "TorchScript": (zipped("net/data.pkl", "net/constants.pkl", "net/code/a.py"), "TorchScript"),
    "export": (zipped("net/archive_format", "net/models/model.json"), "torch.export"),
    "arrays": (zipped("a.npy", "b.npy"), "numpy archive"),
    "zip": (zipped("weights/model.pth"), "which holds weights/model.pth. Unpack it"),
    "ONNX": (b"\x08\x08\x12\x07pytorch" + bytes(50), "ONNX"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "gzip. Unpack it"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "noise": (bytes(range(200, 256)) * 3, "truncated, corrupt, or of an unknown format"),
}


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_files_that_are_no_checkpoints(tmp_path, kind: str, suffix: str):
    data, message = FOREIGN[kind]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data)
    refused(path, "can't be read as a checkpoint", message)


def test_addresses_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"https://x\.y/z\.pth is an address.*download it"):
        read_checkpoint("https://x.y/z.pth")
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(tmp_path, "is a folder", "holds model.safetensors")


@pytest.mark.parametrize("keep", [10, 100, 1000, -1])
@pytest.mark.parametrize("form", ["zip", "old", "pickle", "safetensors"])
def test_truncated_files(tmp_path, keep: int, form: str):
    path = tmp_path / "model.pth"
    state = {"backbone.weight": torch.zeros(1000)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"backbone.weight": np.zeros(1000)}))
    elif form == "safetensors":
        path.write_bytes(safetensors.torch.save(state))
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "truncated")


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}])
def test_harmless_parts_are_accepted(tmp_path, form: dict):
    path = tmp_path / "model.pth"
    content = {
        "model": {"weight": torch.ones(2)},
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "done": np.bool_(True),
        "kind": np.dtype("float32"),
        "random": np.random.RandomState(0).get_state(),
        "args": argparse.Namespace(lr=0.1, inner=argparse.Namespace(size=[3])),
    }
    torch.save(content, path, **form)
    read = read_checkpoint(path)
    assert read["args"] == content["args"] and read["kind"] == content["kind"]
    assert (read["best"], read["epoch"], read["done"]) == (0.5, 3, True)
    np.testing.assert_array_equal(read["random"][1], content["random"][1])
    # Nothing is allowed beyond the call.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_numpy_by_its_old_and_new_names(tmp_path):
    torch.save({"best": np.float32(0.5), "values": np.arange(3)}, tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"cnumpy._core.", b"cnumpy.core."))
    assert read_checkpoint(tmp_path / "old.pth")["best"] == 0.5


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays_in_every_protocol(tmp_path, protocol: int):
    path = tmp_path / "model.pkl"
    content = {"weight": np.ones((2, 3)), "best": np.float32(0.5)}
    path.write_bytes(pickle.dumps(content, protocol))
    read = read_checkpoint(path)
    assert read["best"] == 0.5
    np.testing.assert_array_equal(read["weight"], content["weight"])


def test_safetensors_by_any_name(tmp_path):
    source = build_segmentor("pspnet", "mobilenetv2", 5)
    for name in ("model.safetensors", "model.pth"):
        safetensors.torch.save_file(source.state_dict(), tmp_path / name)
        model = build_segmentor("pspnet", "mobilenetv2", 5)
        assert load_weights(model, tmp_path / name, part="model").part == "model"
        for entry, value in model.state_dict().items():
            torch.testing.assert_close(value, source.state_dict()[entry], msg=entry)


def test_names_that_wrappers_add():
    one, two = torch.ones(1), torch.zeros(1)
    for names in (
        ("module._orig_mod.a", "module._orig_mod.b.c"),
        ("_orig_mod.module.a", "_orig_mod.module.b.c"),
        ("a", "b._orig_mod.c"),
    ):
        assert model_entries(dict(zip(names, (one, two), strict=True))) == {"a": one, "b.c": two}
    assert list(model_entries({"module.a": one, "b": two})) == ["module.a", "b"]
    words = {"a": np.ones(1), "words": np.array(["x"]), "things": np.array([None], object)}
    assert list(model_entries(words)) == ["a"]


def test_a_backbone_is_no_trained_model():
    model = build_segmentor(num_classes=3, backbone="resnet18", stem="basic")
    with pytest.raises(CheckpointError, match=r"holds a backbone alone.*Train first, or name a"):
        load_weights(model, random_state("torchvision_resnet18"), part="model")


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*model_best.*holds model_final"):
        read_checkpoint(tmp_path / "model_best.pth")


def test_unknown_names():
    with pytest.raises(CheckpointError, match="no known codebase"):
        load_weights(build_segmentor(num_classes=2), {"encoder.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no tensors"):
        load_weights(build_segmentor(num_classes=2), {})
