"""SegFormers in whole runs: trained, resumed, scored, predicted with and distilled."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train

from helpers.segformer_runs import TERMS, write_segformer_runs

RUNS = {
    "segformer": {"loss_sem_seg"},
    "segformer_student": TERMS,
    "segformer_teacher": TERMS | {"loss_sem_seg_aux"},
}


@pytest.fixture
def command(configs, tmp_path, monkeypatch):
    """Train with a config's name, flags and overrides; returns the run's folder."""
    write_segformer_runs(configs)

    def call(name: str, folder: str, *words: str):
        flags = ["--runtime", "embedded", "--config-file", str(configs / f"{name}.yaml")]
        assert train([*flags, *words, "OUTPUT_DIR", str(tmp_path / folder)]) == 0
        return tmp_path / folder

    return call


def model_of(output, name: str = "model_final.pth"):
    return torch.load(output / name, weights_only=True)["model"]


@pytest.mark.parametrize("name", RUNS)
def test_trains_and_resumes_to_the_same_bits(command, name: str):
    """With stochastic depth, which draws random numbers."""
    whole = command(name, "whole", "SOLVER.CHECKPOINTS_KEPT", "9")
    lines = [json.loads(line) for line in (whole / "metrics.json").read_text().splitlines()]
    (step,) = [line for line in lines if "total_loss" in line][:1]
    terms = {key: value for key, value in step.items() if key.startswith("loss_")}
    assert terms.keys() == RUNS[name] and all(0 < value < 1e6 for value in terms.values())
    parts = command(name, "parts", "SOLVER.CHECKPOINTS_KEPT", "9")
    for file in ("model_0000005.pth", "model_final.pth", "model_best.pth", "student_final.pth"):
        (parts / file).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    command(name, "parts", "--resume")
    before, expected, found = (
        model_of(whole, "model_0000002.pth"),
        model_of(whole),
        model_of(parts),
    )
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    moved = {key for key, value in expected.items() if not torch.equal(value, before[key])}
    assert moved >= {key for key, value in expected.items() if value.is_floating_point()}


def test_scores_and_predicts(command, configs, tmp_path):
    output = command(
        "segformer", "run", "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"
    )
    command("segformer", "run", "--eval-only", "TEST.SCALES", "[0.75,1.0]", "TEST.FLIP", "True")
    figures = json.loads((output / "evaluation.json").read_text())
    assert 0 <= figures["figures"]["camvid_val"]["sem_seg"]["mIoU"] <= 100
    flags = ["--runtime", "embedded", "--config-file", str(configs / "segformer.yaml")]
    image = str(tmp_path / "data/camvid/val/00000.png")
    words = ["--input", image, "--output", str(tmp_path / "out"), "OUTPUT_DIR", str(output)]
    assert predict([*flags, *words]) == 0
    assert Image.open(tmp_path / "out/00000_labels.png").size == (64, 48)


def test_a_recorded_teacher_in_low_precision(command, tmp_path):
    """Its convolutions are put into bfloat16, its norms stay; tokens are stored as maps."""
    teacher = "MODEL.DISTILLER.TEACHER"
    words = [f"{teacher}.DTYPE", "bfloat16", f"{teacher}.RECORD.VIEWS", "2"]
    words += [f"{teacher}.RECORD.FOLDER", str(tmp_path / "record"), "SOLVER.MAX_ITER", "12"]
    output = command("segformer_teacher", "recorded", *words)
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    steps = [line for line in lines if "total_loss" in line]
    assert all(0 < step["loss_feature_kd"] < 1e6 for step in steps)
    assert any((tmp_path / "record").rglob("*"))


def test_float16_training(command):
    output = command(
        "segformer_student", "half", "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"
    )
    assert all(value.isfinite().all() for value in model_of(output).values())
