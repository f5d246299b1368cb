"""Tiny runs on depth maps: a described data set of a few 48x64 images, a small network."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config

from helpers.tiny_runs import STUDENT, TEACHER

DATA = {
    "labels": {"encoding": "depth", "scale": 0.001, "invalid": [0, 65535]},
    "files": {"images": "images", "labels": "depth"},
    "splits": {"train": {"share": 0.75}, "val": {"share": 0.25}},
}
LOSSES = {
    "afdcd": {"NAME": "afdcd", "POOL": 0, "GROUPS": 8, "REDUCTION": "mean"},
    "cwd": {"NAME": "cwd", "TEMPERATURE": 1.0},
    "output_kd": {"NAME": "output_kd"},
}


def write_images(folder: Path, count: int = 8) -> None:
    """Boxes before a wall and a floor; in ``images/`` and, in millimetres, in ``depth/``."""
    rng = np.random.default_rng(0)
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        depth = np.full((48, 64), 9000, np.uint16)
        depth[24:] = (9000 - 200 * np.arange(24))[:, None]
        depth[:4] = 65535 if index % 2 else 0
        top, left = (int(n) for n in rng.integers(4, 28, 2))
        depth[top : top + 16, left : left + 24] = rng.integers(1500, 4000)
        image = (255 * np.exp(-depth / 4000.0))[..., None] + rng.normal(0, 4, (48, 64, 3))
        cv2.imwrite(str(folder / f"images/{index}.png"), np.clip(image, 0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / f"depth/{index}.png"), depth)


def write_depth_runs(folder: Path) -> Path:
    """Data, configs and a teacher's weights below ``folder``.

    Returns:
        ``folder``, with student.yaml, teacher.yaml, distilled.yaml, data.yaml and teacher.pth.
    """
    write_images(folder)
    student = copy.deepcopy(STUDENT)
    student["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] = 1
    student["DATASETS"] = {"TRAIN": ["data.yaml:train"], "TEST": ["data.yaml:val"]}
    distilled = {
        "_BASE_": "student.yaml",
        "MODEL": {
            "META_ARCHITECTURE": "Distiller",
            "DISTILLER": {
                "TEACHER": {"CONFIG_FILE": "teacher.yaml", "WEIGHTS": str(folder / "teacher.pth")},
                "LOSSES": LOSSES,
            },
        },
    }
    files = {"data": DATA, "student": student, "teacher": TEACHER, "distilled": distilled}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    torch.manual_seed(0)
    teacher = build_segmentor_from_config(configure(str(folder / "teacher.yaml"), []))
    torch.save({"model": teacher.state_dict()}, folder / "teacher.pth")
    return folder
