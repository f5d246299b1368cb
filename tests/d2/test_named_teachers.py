"""Teachers that are other people's models, in Detectron2's runtime."""

from __future__ import annotations

import json

import pytest

from afdcd.d2.config import get_cfg
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.distill import Distiller

from helpers.d2_runs import checkpoint, losses, train_detectron2, train_embedded
from helpers.named_teachers import CLASSES, FUNCTION, write_named, write_program

LOSSES = {
    "logit_kd": {"NAME": "logit_kd"},
    "context": {
        "NAME": "afdcd",
        "TAPS": [["backbone.res5", "maps.features"]],
        "POOL": 0,
        "PATCH": [2, 2],
        "GROUPS": 8,
        "DIMS": 16,
    },
}
TABLE = {"zebra": "Pavement"}


@pytest.fixture
def named(configs, tmp_path):
    (tmp_path / "their_net.py").write_text(FUNCTION)
    name = f"{tmp_path / 'their_net.py'}:net"
    return write_named(configs, name, losses=LOSSES, CLASSES=CLASSES, CLASS_MAP=TABLE)


def test_both_runtimes_agree(named, tmp_path):
    train_embedded(named, tmp_path / "one", "SOLVER.MAX_ITER", "1")
    train_detectron2(named, tmp_path / "other", "SOLVER.MAX_ITER", "1")
    (ours,), (theirs,) = losses(tmp_path / "one"), losses(tmp_path / "other")
    assert ours.keys() == theirs.keys() >= {"loss_logit_kd", "loss_contrast"}
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=1e-5), name
    figures = [
        json.loads((tmp_path / name / "results.json").read_text())["teacher"]["mIoU"]
        for name in ("one", "other")
    ]
    assert figures[0] == pytest.approx(figures[1])
    assert not any("their" in name for name in checkpoint(tmp_path / "other")["model"])


def test_a_recorded_program(configs, tmp_path):
    path = write_program(tmp_path / "net.pt2")
    config = write_named(configs, str(path), losses=LOSSES, CLASSES=CLASSES)
    folder = ["MODEL.DISTILLER.TEACHER.RECORD.FOLDER", str(tmp_path / "record")]
    folder += ["MODEL.DISTILLER.TEACHER.RECORD.VIEWS", "1", "SOLVER.MAX_ITER", "6"]
    train_detectron2(config, tmp_path / "one", *folder)
    train_embedded(config, tmp_path / "other", *folder)
    assert json.loads((tmp_path / "record/record.json").read_text())["classes"][:3] == [1, 4, 5]


def test_the_distiller_of_a_plain_config(named):
    """As Detectron2's own scripts build it."""
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(str(named))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    assert isinstance(model, Distiller)
    assert model.teacher.channels == len(CLASSES)
    assert Detectron2Runtime(cfg).class_names[0] == "Sky"
