"""A package as Mask2Former is one: own keys, meta-architecture, mapper and pixel decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main as train
from afdcd.d2.shapes import register_shapes

from helpers.d2_runs import assert_same_tensors, checkpoint, losses, train_detectron2

PACKAGE = '''
"""Queries classify the masks that they cut out of a pixel decoder's map."""
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F
from afdcd.d2 import MAPPERS


def add_config(cfg):
    cfg.MODEL.MASK_FORMER = type(cfg)({"QUERIES": 4, "HIDDEN": 16, "NO_OBJECT_WEIGHT": 0.1})
    cfg.INPUT.BRIGHTNESS = 0.0


@MAPPERS.register("mask_former")
class Mapper:
    """Detectron2's, after which each image's brightness changes."""

    def __init__(self, cfg, is_train):
        self.inner, self.amount = DatasetMapper(cfg, is_train=is_train), cfg.INPUT.BRIGHTNESS

    def __call__(self, record):
        sample = self.inner(record)
        if self.amount:
            sample["image"] = sample["image"] * (1 + self.amount * np.random.rand())
        return sample


class PixelDecoder(nn.Module):
    def __init__(self, shape, hidden):
        super().__init__()
        self.names = list(shape)
        self.laterals = nn.ModuleList(nn.Conv2d(s.channels, hidden, 1) for s in shape.values())
        self.mask_features = nn.Conv2d(hidden, hidden, 3, padding=1)

    def forward(self, features):
        maps = [conv(features[name]) for name, conv in zip(self.names, self.laterals)]
        size = maps[0].shape[-2:]
        return self.mask_features(sum(F.interpolate(m, size=size) for m in maps))


@META_ARCH_REGISTRY.register()
class TinyMaskFormer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        former = cfg.MODEL.MASK_FORMER
        self.backbone = build_backbone(cfg)
        self.pixel_decoder = PixelDecoder(self.backbone.output_shape(), former.HIDDEN)
        self.queries = nn.Embedding(former.QUERIES, former.HIDDEN)
        self.classes = nn.Linear(former.HIDDEN, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES + 1)
        self.register_buffer("pixel_mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(-1, 1, 1), False)
        self.weight = former.NO_OBJECT_WEIGHT

    @property
    def device(self):
        return self.pixel_mean.device

    def forward(self, batched_inputs):
        images = [x["image"].to(self.device) - self.pixel_mean for x in batched_inputs]
        images = ImageList.from_tensors(images, self.backbone.size_divisibility)
        masks = self.pixel_decoder(self.backbone(images.tensor))
        masks = torch.einsum("qc,nchw->nqhw", self.queries.weight, masks).sigmoid()
        scores = self.classes(self.queries.weight).softmax(-1)[:, :-1]
        maps = torch.einsum("qk,nqhw->nkhw", scores, masks)
        maps = F.interpolate(maps, size=images.tensor.shape[-2:])
        if not self.training:
            return [
                {"sem_seg": F.interpolate(m[None], size=(x["height"], x["width"]))[0]}
                for m, x in zip(maps, batched_inputs)
            ]
        truth = [x["sem_seg"].to(self.device) for x in batched_inputs]
        truth = ImageList.from_tensors(truth, self.backbone.size_divisibility, 255).tensor
        return {
            "loss_mask": F.nll_loss(maps.clamp(min=1e-6).log(), truth, ignore_index=255),
            "loss_ce": self.weight * -scores.sum(-1).clamp(min=1e-6).log().mean(),
        }
'''
DATA = "shapes_{}_panoptic_stuffonly"
TEACHER = {
    "IMPORTS": ["mask_former.py"],
    "MODEL": {
        "META_ARCHITECTURE": "TinyMaskFormer",
        "DEVICE": "cpu",
        "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 50,
            "OUT_FEATURES": ["res2", "res4"],
            "NORM": "BN",
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 8,
            "WIDTH_PER_GROUP": 4,
        },
        "SEM_SEG_HEAD": {"NUM_CLASSES": 3},
        "MASK_FORMER": {"QUERIES": 5},
    },
    "INPUT": {
        "MAPPER": "mask_former",
        "BRIGHTNESS": 0.2,
        "MIN_SIZE_TRAIN": [64],
        "CROP": {"ENABLED": True, "TYPE": "absolute", "SIZE": [64, 64]},
    },
    "DATASETS": {"TRAIN": [DATA.format("train")], "TEST": [DATA.format("val")]},
    "DATALOADER": {"NUM_WORKERS": 1},
    "SOLVER": {"IMS_PER_BATCH": 4, "MAX_ITER": 4, "CHECKPOINT_PERIOD": 2, "BASE_LR": 0.01},
    "SEED": 1,
}
DISTILLED = {
    "_BASE_": "teacher.yaml",
    "MODEL": {
        "META_ARCHITECTURE": "Distiller",
        "MASK_FORMER": {"QUERIES": 3, "HIDDEN": 8},
        "DISTILLER": {
            "STUDENT": "TinyMaskFormer",
            "TEACHER": {"CONFIG_FILE": "teacher.yaml"},
            "LOSSES": {
                "pixels": {
                    "NAME": "afdcd",
                    "TAPS": [["pixel_decoder.mask_features", "pixel_decoder.mask_features"]],
                    "POOL": 0,
                    "GROUPS": 8,
                }
            },
        },
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    register_shapes()
    (tmp_path / "mask_former.py").write_text(PACKAGE)
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
    (tmp_path / "distilled.yaml").write_text(yaml.safe_dump(DISTILLED))
    yield tmp_path
    monkeypatch.undo()
    register_shapes()


def test_as_student_and_as_teacher_with_two_processes(folder, capsys):
    train_detectron2(folder / "teacher.yaml", folder / "teacher")
    words = ["MODEL.DISTILLER.TEACHER.WEIGHTS", str(folder / "teacher/student_final.pth")]
    config, one = folder / "distilled.yaml", folder / "one"
    train_detectron2(config, one, *words, num_gpus=2)
    (line,) = losses(one)
    assert line.keys() == {"loss_mask", "loss_ce", "loss_reconstruction", "loss_contrast"}
    assert checkpoint(one)["model"]["queries.weight"].shape == (3, 8)

    # Killed after its first checkpoint and resumed, its own mapper draws the same.
    two = folder / "two"
    keep = [*words, "SOLVER.CHECKPOINTS_KEPT", "9"]
    train_detectron2(config, two, *keep, num_gpus=2)
    for path in (two / "model_final.pth", two / "student_final.pth", two / "model_best.pth"):
        path.unlink()
    (two / "last_checkpoint").write_text("model_0000001.pth")
    train_detectron2(config, two, *keep, num_gpus=2, resume=True)
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(two)[part], checkpoint(one)[part])

    command = ["--runtime", "detectron2", "--config-file", str(config), *words]
    doctor([*command, "OUTPUT_DIR", str(folder / "three")])
    said = " ".join(capsys.readouterr().out.split())
    assert "tap of the student: pixel_decoder.mask_features" in said, said
    assert train([*command, "INPUT.MAPPER", "mask_formr", "OUTPUT_DIR", str(folder / "four")]) == 2
    assert "did you mean mask_former" in capsys.readouterr().err
