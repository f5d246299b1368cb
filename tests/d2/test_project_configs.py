"""The configs beyond the paper: they can be read, and their models and taps fit each other."""

from __future__ import annotations

import pytest

from afdcd.d2.checks import config_problems
from afdcd.d2.config import configure, teacher_config
from afdcd.d2.modeling import build_student
from afdcd.distill import build_distiller

from helpers.shapes_runs import CONFIGS

WHOLE = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.rglob("*.yaml")
    if path.parent != CONFIGS and "OUTPUT_DIR" in path.read_text()
)


@pytest.mark.parametrize("name", WHOLE)
def test_settings(name: str):
    cfg = configure(str(CONFIGS / f"{name}.yaml"), [])
    assert config_problems(cfg) == []
    assert f"output/{name}" == cfg.OUTPUT_DIR
    if "afdcd" not in name:
        return
    teacher = teacher_config(cfg)
    assert teacher.MODEL.META_ARCHITECTURE == cfg.MODEL.DISTILLER.STUDENT
    for head in ("ROI_HEADS", "SEM_SEG_HEAD"):
        assert teacher.MODEL[head].NUM_CLASSES == cfg.MODEL[head].NUM_CLASSES
    assert teacher.DATASETS == cfg.DATASETS
    if "tiny" not in name:
        assert (101, int(name[-2:])) == (teacher.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.DEPTH)


@pytest.mark.parametrize(
    "name", ["coco/afdcd_panoptic_fpn_r18", "cityscapes/afdcd_panoptic_fpn_r18"]
)
def test_models_and_taps_fit(name: str):
    words = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TRAIN", "[256]"]
    cfg = configure(str(CONFIGS / f"{name}.yaml"), words)
    teacher_cfg = teacher_config(cfg)
    teacher_cfg.MODEL.DISTILLER.STUDENT = teacher_cfg.MODEL.META_ARCHITECTURE
    distiller = build_distiller(
        cfg,
        build_student(cfg),
        build_student(teacher_cfg),
        teacher_format=teacher_cfg.INPUT.FORMAT,
    )
    assert distiller.distiller.formula() == (
        "task + 0.5 * reconstruction_fpn_output3 + 0.0012 * contrast_fpn_output3"
        " + 1 * reconstruction_fpn_output4 + 0.0024 * contrast_fpn_output4"
        " + 1 * reconstruction_fpn_output5 + 0.0024 * contrast_fpn_output5"
        " + 0.5 * logit_kd"
    )
    assert distiller._teacher.flip_channels  # the teacher's weights are for blue, green, red
