"""Each planted fault is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afdcd.data import load_dataset

from helpers.doctor_case import DATA, Case, examine

pytestmark = pytest.mark.slow


def swap_classes(case: Case) -> None:
    def edit(entries: dict[str, torch.Tensor]) -> None:
        for name, value in entries.items():
            if "predictor" in name and "aux" not in name:
                entries[name] = value[[1, 2, 0]]

    case.weights(edit)


def randomize(entries: dict[str, torch.Tensor]) -> None:
    for name, value in entries.items():
        if name.endswith("predictor.weight"):
            value.zero_()
        if name.endswith("predictor.bias"):
            value[:] = torch.arange(len(value))


def spoil(entries: dict[str, torch.Tensor]) -> None:
    next(v for n, v in entries.items() if n.endswith("conv1.weight")).fill_(float("nan"))


def rename_first(case: Case) -> None:
    case.change("data", classes=[{"name": n, "color": "#010101"} for n in "ab"])


def repaint(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def never_water(case: Case) -> None:
    for path in case.masks:
        repaint(path, lambda m: np.where((m == (0, 0, 200)).all(-1, keepdims=True), 0, m))


def rarely_water(case: Case) -> None:
    never_water(case)
    path = load_dataset(f"{case.folder}/data.yaml:train").records[0]["sem_seg_file_name"]
    mask = np.array(Image.open(path))
    mask[0, 0] = (0, 0, 200)
    Image.fromarray(mask).save(path)


def other_classes_of_teacher(case: Case) -> None:
    shutil.copy(case.folder / "data.yaml", case.folder / "other.yaml")
    case.change("other", classes=[DATA["classes"][k] for k in (2, 0, 1)])
    case.change("teacher", DATASETS={"TRAIN": ["other.yaml:train"]})


def both_splits(case: Case) -> None:
    case.change("data", splits={"train": {"share": None}, "val": {"share": None}})


D = "MODEL.DISTILLER."
# Fault -> (how it is planted, kind of the finding, words in it).
FAULTS: dict[str, tuple[Callable[[Case], Any], str, str]] = {
    "no config": (lambda c: (c.folder / "distilled.yaml").unlink(), "config", "no config file"),
    "config is no YAML": (
        lambda c: (c.folder / "distilled.yaml").write_text("A: [\x00"),
        "config",
        "isn't valid YAML",
    ),
    "unknown key": (lambda c: c.change("distilled", SOLVR={"A": 1}), "config", "SOLVR"),
    "wrong type": (lambda c: c.override("SOLVER.MAX_ITER", "many"), "config", "MAX_ITER"),
    "batch of one": (lambda c: c.override("SOLVER.IMS_PER_BATCH", "1"), "config", "at least 2"),
    "no iterations": (lambda c: c.override("SOLVER.MAX_ITER", "0"), "config", "MAX_ITER"),
    "learning rate": (lambda c: c.override("SOLVER.BASE_LR", "20.0"), "learning-rate", "BASE_LR"),
    "no deviation": (
        lambda c: c.override("MODEL.PIXEL_STD", "[1.0,0.0,1.0]"),
        "normalization",
        "PIXEL_STD",
    ),
    "scales": (
        lambda c: c.override("INPUT.SCALE_CROP.SCALES", "[2.0,0.5]"),
        "config",
        "smallest, largest",
    ),
    "data set typo": (
        lambda c: c.override("DATASETS.TRAIN", "['camvid_trian']"),
        "dataset",
        "did you mean camvid_train",
    ),
    "no such split": (
        lambda c: (
            c.change("data", splits={"train": {"share": 1.0}, "val": {"share": None}})
            or c.change("distilled", DATASETS={"TEST": ["data.yaml:test"]})
        ),
        "dataset",
        "no split 'test'",
    ),
    "no images": (
        lambda c: shutil.rmtree(c.folder / "tiles"),
        "dataset",
        "no folder",
    ),
    "missing label map": (lambda c: c.masks[3].unlink(), "dataset", "images have no label map"),
    "corrupt image": (lambda c: c.images[2].write_bytes(b"no"), "file", "can't be read"),
    "truncated label map": (
        lambda c: c.masks[5].write_bytes(c.masks[5].read_bytes()[:99]),
        "file",
        "can't be read as a label map",
    ),
    "sizes differ": (
        lambda c: Image.new("RGB", (9, 9)).save(c.images[1]),
        "file",
        "is 9x9 but its label map",
    ),
    "undefined colour": (
        lambda c: repaint(c.masks[0], lambda m: np.where(m == 200, 199, m)),
        "file",
        "doesn't define: ",
    ),
    "grey label map": (
        lambda c: Image.new("L", (64, 48)).save(c.masks[0]),
        "file",
        "mode L",
    ),
    "absent class": (never_water, "absent-class", "never shows water"),
    "rare class": (rarely_water, "rare-class", "water"),
    "nothing labelled": (
        lambda c: [repaint(path, np.zeros_like) for path in c.masks],
        "unlabelled",
        "show no class at all",
    ),
    "black images": (
        lambda c: [repaint(path, lambda i: i // 99) for path in c.images],
        "flat-image",
        "show one colour",
    ),
    "train and test share images": (both_splits, "leak", "share 16 images"),
    "images smaller than the crop": (
        lambda c: c.override("INPUT.SCALE_CROP.SIZE", "[128,160]"),
        "small-images",
        "smaller than the crop",
    ),
    "number of classes": (
        lambda c: c.override("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"),
        "classes",
        "NUM_CLASSES is 4",
    ),
    "ignored value": (
        lambda c: c.override("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "0"),
        "dataset",
        "IGNORE_VALUE is 0, but the pixels of",
    ),
    "teacher's classes in another order": (
        other_classes_of_teacher,
        "class-order",
        "differ in order: 0 is field and building",
    ),
    "teacher's logits in another order": (swap_classes, "class-order", "in another order"),
    "untrained teacher": (
        lambda c: c.weights(randomize),
        "teacher",
        "no better than one class everywhere",
    ),
    "no teacher config": (
        lambda c: (c.folder / "teacher.yaml").unlink(),
        "teacher",
        "no config file",
    ),
    "no teacher weights": (
        lambda c: (c.folder / "teacher.pth").unlink(),
        "weights",
        "no checkpoint at",
    ),
    "truncated weights": (
        lambda c: (c.folder / "teacher.pth").write_bytes(b"PK" * 50),
        "weights",
        "teacher.pth",
    ),
    "weights of another network": (
        lambda c: c.change("teacher", MODEL={"RESNETS": {"RES2_OUT_CHANNELS": 16}}),
        "weights",
        "of another shape",
    ),
    "weights of no model": (
        lambda c: torch.save({"model": {"a": torch.zeros(2)}}, c.folder / "teacher.pth"),
        "weights",
        "names of no known codebase",
    ),
    "weights not finite": (lambda c: c.weights(spoil), "weights", "not finite"),
    "student's weights missing": (
        lambda c: c.override("MODEL.WEIGHTS", "none.pth"),
        "weights",
        "MODEL.WEIGHTS: no checkpoint",
    ),
    "no such tap": (
        lambda c: c.override(f"{D}LOSSES.afdcd.TAPS", "[['backbone.res6','backbone.res5']]"),
        "tap",
        "no module 'backbone.res6'",
    ),
    "tap in the teacher": (
        lambda c: c.override(f"{D}LOSSES.afdcd.TAPS", "[['backbone.res5','backbone.rse5']]"),
        "tap",
        "did you mean backbone.res5",
    ),
    "tap of a container": (
        lambda c: c.override(f"{D}LOSSES.afdcd.TAPS", "[['backbone','backbone.res5']]"),
        "tap",
        "takes one feature map",
    ),
    "one tap": (
        lambda c: c.override(f"{D}LOSSES.afdcd.TAPS", "[['backbone.res5']]"),
        "config",
        "pair",
    ),
    "unknown loss": (
        lambda c: c.override(f"{D}LOSSES.afdcd.NAME", "afdcdd"),
        "config",
        "did you mean afdcd",
    ),
    "projector's learning rate": (
        lambda c: c.override(f"{D}LR_FACTOR", "-1.0"),
        "config",
        "LR_FACTOR must be above 0",
    ),
    "patch larger than the map": (
        lambda c: c.override(f"{D}LOSSES.afdcd.PATCH", "[8,8]"),
        "tap",
        "holds no patch of 8x8",
    ),
    "groups don't divide": (
        lambda c: c.override(f"{D}LOSSES.afdcd.GROUPS", "7"),
        "tap",
        "7",
    ),
    "temperature": (
        lambda c: c.override(f"{D}LOSSES.afdcd.TEMPERATURE", "0.0"),
        "config",
        "temperature must be above 0",
    ),
    "weight far off": (
        lambda c: c.override(f"{D}LOSSES.afdcd.RECONSTRUCTION_WEIGHT", "1e6"),
        "loss-weight",
        "loss_reconstruction's gradient",
    ),
    "weight not finite": (
        lambda c: c.override(f"{D}LOSSES.logit_kd.WEIGHT", "1e39"),
        "non-finite",
        "loss_logit_kd",
    ),
    "too little memory": (
        lambda c: c.override("SOLVER.IMS_PER_BATCH", "10000000"),
        "memory",
        "GiB",
    ),
    "output is a file": (
        lambda c: c.override("OUTPUT_DIR", str(c.folder / "data.yaml")),
        "output",
        "data.yaml is a file",
    ),
    "output is taken": (
        lambda c: (
            (c.folder / "out").mkdir(),
            (c.folder / "out/last_checkpoint").write_text("model_final.pth"),
        ),
        "output",
        "already holds a run",
    ),
    "broken description": (rename_first, "dataset", "one colour"),
}
REMARKS = {"rare class"}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(case, capsys, fault: str):
    plant, kind, words = FAULTS[fault]
    plant(case)
    report = examine(case, capsys)
    found = report["notes" if fault in REMARKS else "fix"]
    assert any(f["kind"] == kind and words in f["text"] for f in found), found
    assert report["ok"] == (fault in REMARKS)
    texts = [f["text"] for f in report["fix"]]
    assert len(texts) == len(set(texts))
