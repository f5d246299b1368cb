"""The depth configs: they differ in what they are about, and fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afdcd.data import get_spec
from afdcd.distill import distiller_settings
from afdcd.distill.distiller import tap_shapes
from afdcd.distill.plan import build_objectives
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.models import build_segmentor_from_config

CONFIGS = Path(__file__).parents[2] / "configs/depth"


@pytest.mark.parametrize("method", ["afdcd", "feature_kd"])
def test_only_the_distillation_differs(method: str):
    alone = configure(str(CONFIGS / "student.yaml"), [])
    cfg = configure(str(CONFIGS / f"{method}.yaml"), [])
    teacher = EmbeddedRuntime(cfg).teacher().cfg
    for node in ("INPUT", "DATASETS", "SOLVER", "DATALOADER", "TEST"):
        assert cfg[node] == alone[node]
    for node in ("BACKBONE", "RESNETS", "SEM_SEG_HEAD", "WEIGHTS"):
        assert cfg.MODEL[node] == alone.MODEL[node]
    assert teacher.DATASETS == cfg.DATASETS and teacher.INPUT == cfg.INPUT
    assert f"{teacher.OUTPUT_DIR}/student_final.pth" == cfg.MODEL.DISTILLER.TEACHER.WEIGHTS
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == teacher.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 1
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert get_spec(name).task == "depth"


@pytest.mark.parametrize("method", ["afdcd", "feature_kd"])
def test_the_student_fits_its_teacher(method: str):
    cfg = configure(str(CONFIGS / f"{method}.yaml"), [])
    settings = distiller_settings(cfg).losses
    assert [loss.name for loss in settings] == [method]
    shapes, size = {}, tuple(cfg.INPUT.SCALE_CROP.SIZE)
    for side, config in (("student", cfg), ("teacher", EmbeddedRuntime(cfg).teacher().cfg)):
        with torch.device("meta"):
            model = build_segmentor_from_config(config)
        taps = [pair[side == "teacher"] for loss in settings for pair in loss.taps]
        found = tap_shapes(model, taps, size=size)
        shapes |= {(side, path): shape for path, shape in found.items()}
    with torch.device("meta"):
        assert [o.name for o in build_objectives(settings, shapes).objectives] == [method]
