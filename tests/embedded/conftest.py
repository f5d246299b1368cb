"""Tiny runs: a CamVid of a few 48x64 images, a small network, a few iterations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from camvid_files import write_camvid

STUDENT = {
    "MODEL": {
        "META_ARCHITECTURE": "SemanticSegmentor",
        "DEVICE": "cpu",
        "PIXEL_MEAN": [104.0, 116.0, 122.0],
        "BACKBONE": {"NAME": "build_dilated_resnet_backbone", "FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 18,
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 4,
            "NORM": "BN",
            "OUT_FEATURES": ["res4", "res5"],
        },
        "SEM_SEG_HEAD": {
            "NAME": "ASPPHead",
            "IN_FEATURES": ["res5"],
            "NUM_CLASSES": 11,
            "CONVS_DIM": 8,
            "NORM": "BN",
            "AUX_WEIGHT": 0.4,
        },
    },
    "INPUT": {
        "MIN_SIZE_TRAIN": [0],
        "MIN_SIZE_TEST": 0,
        "SCALE_CROP": {"SIZE": [32, 32]},
    },
    "DATASETS": {"TRAIN": ["camvid_train"], "TEST": ["camvid_val"]},
    "DATALOADER": {"NUM_WORKERS": 0},
    "SOLVER": {
        "LR_SCHEDULER_NAME": "WarmupPolyLR",
        "WARMUP_ITERS": 0,
        "BASE_LR": 0.02,
        "MAX_ITER": 8,
        "IMS_PER_BATCH": 2,
        "CHECKPOINT_PERIOD": 3,
    },
    "SEED": 5,
}
TEACHER = {
    "_BASE_": "student.yaml",
    "MODEL": {"RESNETS": {"RES2_OUT_CHANNELS": 8}, "SEM_SEG_HEAD": {"AUX_WEIGHT": 0.0}},
}
DISTILLED = {
    "_BASE_": "student.yaml",
    "MODEL": {
        "META_ARCHITECTURE": "Distiller",
        "DISTILLER": {"TEACHER": {"CONFIG_FILE": "teacher.yaml"}},
        "AFDCD": {"CONTRAST": {"POOL": 0, "GROUPS": 8}},
    },
}


@pytest.fixture
def configs(tmp_path, monkeypatch) -> Path:
    """A folder with student.yaml, teacher.yaml, distilled.yaml and the teacher's weights."""
    from afdcd.commands.train_net import configure
    from afdcd.models import build_segmentor_from_config

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    write_camvid(tmp_path / "data/camvid", train=6, val=2)
    folder = tmp_path / "configs"
    folder.mkdir()
    weights = tmp_path / "teacher.pth"
    DISTILLED["MODEL"]["DISTILLER"]["TEACHER"]["WEIGHTS"] = str(weights)
    for name, content in (("student", STUDENT), ("teacher", TEACHER), ("distilled", DISTILLED)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    teacher = build_segmentor_from_config(configure(str(folder / "teacher.yaml"), []))
    torch.save({"model": teacher.state_dict()}, weights)
    return folder
