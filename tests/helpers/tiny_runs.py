"""Tiny runs: a CamVid of a few 48x64 images, a small network, a few iterations."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import yaml

from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config

from helpers.camvid_files import write_camvid

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
        "DISTILLER": {
            "TEACHER": {"CONFIG_FILE": "teacher.yaml"},
            "LOSSES": {
                "logit_kd": {"NAME": "logit_kd"},
                "afdcd": {"NAME": "afdcd", "POOL": 0, "GROUPS": 8},
            },
        },
    },
}


def write_tiny_runs(folder: Path) -> Path:
    """Data, configs and a teacher's weights below ``folder``.

    Returns:
        ``folder / "configs"``, with student.yaml, teacher.yaml and distilled.yaml. The data sets'
        root is ``folder / "data"``, the teacher's weights are ``folder / "teacher.pth"``.
    """
    write_camvid(folder / "data/camvid", train=6, val=2)
    configs = folder / "configs"
    configs.mkdir()
    weights = folder / "teacher.pth"
    distilled = copy.deepcopy(DISTILLED)
    distilled["MODEL"]["DISTILLER"]["TEACHER"]["WEIGHTS"] = str(weights)
    for name, content in (("student", STUDENT), ("teacher", TEACHER), ("distilled", distilled)):
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    torch.manual_seed(0)
    teacher = build_segmentor_from_config(configure(str(configs / "teacher.yaml"), []))
    torch.save({"model": teacher.state_dict()}, weights)
    return configs
