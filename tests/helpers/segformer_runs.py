"""Tiny SegFormers beside the tiny runs: alone, and as student and teacher with taps on tokens."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config

STAGES = ["res2", "res3", "res4", "res5"]
NETWORK = {
    "BACKBONE": {"NAME": "build_mit_backbone"},
    "MIT": {"WIDTHS": [4, 8, 20, 16], "DEPTHS": [1, 1, 1, 2]},
    "SEM_SEG_HEAD": {"NAME": "MLPHead", "IN_FEATURES": STAGES, "AUX_WEIGHT": 0.0},
}
TERMS = {"loss_sem_seg", "loss_logit_kd", "loss_feature_kd", "loss_reconstruction", "loss_contrast"}


def _distilled(student_tap: str, teacher_tap: str) -> dict:
    return {
        "LOSSES": {
            "tokens": {"NAME": "feature_kd", "TAPS": [[student_tap, teacher_tap]], "WEIGHT": 0.1},
        }
    }


def write_segformer_runs(configs: Path) -> None:
    """Write configs beside student.yaml, teacher.yaml and distilled.yaml, and a teacher's weights.

    segformer.yaml is a SegFormer alone; segformer_student.yaml distils the convolutional teacher
    into it, segformer_teacher.yaml a SegFormer into the convolutional student.
    """
    weights = configs.parent / "segformer.pth"
    tokens = "backbone.res4.blocks.0.norm2"
    student = {
        "_BASE_": ["distilled.yaml", "segformer.yaml"],
        "MODEL": {"META_ARCHITECTURE": "Distiller"},
    }
    student["MODEL"]["DISTILLER"] = _distilled(tokens, "backbone.res5")
    teacher = {
        "_BASE_": "distilled.yaml",
        "MODEL": {"DISTILLER": _distilled("backbone.res5", tokens)},
    }
    teacher["MODEL"]["DISTILLER"]["TEACHER"] = {
        "CONFIG_FILE": "segformer.yaml",
        "WEIGHTS": str(weights),
    }
    # Its res5 is too small for a patch.
    losses = teacher["MODEL"]["DISTILLER"]["LOSSES"]
    losses["afdcd"] = {"TAPS": [["backbone.res5", "backbone.res3"]]}
    files = {
        # res5 of 2x2: with a single token, queries and keys would get no gradient.
        "segformer": {
            "_BASE_": "student.yaml",
            "MODEL": NETWORK,
            "INPUT": {"SCALE_CROP": {"SIZE": [64, 64]}},
        },
        "segformer_student": student,
        "segformer_teacher": teacher,
    }
    for name, content in files.items():
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    torch.manual_seed(0)
    model = build_segmentor_from_config(configure(str(configs / "segformer.yaml"), []))
    torch.save({"model": model.state_dict()}, weights)
