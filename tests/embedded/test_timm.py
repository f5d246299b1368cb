"""Backbones of timm as students, and as teachers."""

from __future__ import annotations

import logging

import pytest
import torch
import yaml

from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main as train
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config

from helpers.small_networks import TIMM, check_whole_run, write_network

pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["network", "network_distilled"])
@pytest.mark.parametrize("network", TIMM)
def test_trains_resumes_evaluates_and_predicts(configs, tmp_path, network: str, name: str):
    write_network(configs, TIMM[network])
    check_whole_run(configs, tmp_path, "embedded", name)


def test_as_a_teacher_by_default_taps(configs, tmp_path):
    """Its map is tapped as backbone.res5, like any other teacher's."""
    teacher = {"_BASE_": "student.yaml", "MODEL": TIMM["deeplabv3_convnext"]}
    (configs / "teacher.yaml").write_text(yaml.safe_dump(teacher))
    model = build_segmentor_from_config(configure(str(configs / "teacher.yaml"), []))
    torch.save({"model": model.state_dict()}, tmp_path / "teacher.pth")
    words = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    words += ["SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    assert train(words) == 0
    line = (tmp_path / "run/metrics.json").read_text().splitlines()[0]
    assert "loss_contrast" in line and "loss_logit_kd" in line


def test_errors_come_before_training(configs, tmp_path, capsys):
    write_network(configs, TIMM["deeplabv3_convnext"])
    flags = ["--runtime", "embedded", "--config-file", str(configs / "network.yaml")]
    flags += ["OUTPUT_DIR", str(tmp_path / "run")]
    for words, message in (
        (["MODEL.BACKBONE.NAME", "timm:pvt_v2_b0"], "Set MODEL.BACKBONE.OUTPUT_STRIDE"),
        (["MODEL.BACKBONE.NAME", "timm:test_convnxt"], "did you mean test_convnext"),
        (["MODEL.BACKBONE.NAME", "timm:test_convnext.in99"], "timm: Invalid pretrained tag (in99)"),
        (["MODEL.BACKBONE.FREEZE_AT", "2"], "trains all of its stages: set it to 0"),
    ):
        assert train([*flags, *words]) == 2
        assert message in capsys.readouterr().err
        assert not list((tmp_path / "run").glob("model_*"))
        assert doctor([*flags, *words]) == 1
        assert message in " ".join(capsys.readouterr().out.split())


def test_another_normalization_is_said(configs, caplog):
    write_network(configs, TIMM["deeplabv3_convnext"])
    caplog.set_level(logging.INFO)

    def said(*words: str) -> str:
        caplog.clear()
        build_segmentor_from_config(configure(str(configs / "network.yaml"), list(words)))
        return caplog.text

    # test_convnext's weights take 0.5 as mean and deviation.
    assert "were trained with MODEL.PIXEL_MEAN [127.5, 127.5, 127.5]" in said()
    same = ["MODEL.PIXEL_MEAN", "[127.5,127.5,127.5]", "MODEL.PIXEL_STD", "[127.5,127.5,127.5]"]
    assert "PIXEL_MEAN" not in said(*same)
    # In the order of the config's channels: green, which is in the middle, is the same in both.
    other = ["MODEL.BACKBONE.NAME", "timm:test_efficientnet"]
    assert "MODEL.PIXEL_MEAN [103.53, 116.28, 123.675]" in said(*other)
    assert "MODEL.PIXEL_MEAN [123.675, 116.28, 103.53]" in said(*other, "INPUT.FORMAT", "RGB")
