"""Depth in Detectron2's runtime: as in the embedded one, and in two processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.d2 import checks
from afdcd.d2.config import configure
from afdcd.d2.run import launch_run

from helpers.d2_runs import (
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
    train_embedded,
)
from helpers.depth_runs import write_depth_runs

FIGURES = ("AbsRel", "RMSE", "logRMSE", "delta1", "delta2", "delta3")


@pytest.fixture
def place(tmp_path) -> Path:
    return write_depth_runs(tmp_path / "depth")


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_whole_runs_end_with_the_same_weights_and_scores(place, tmp_path, name: str):
    config = place / f"{name}.yaml"
    a = train_embedded(config, tmp_path / "a", "TEST.EVAL_PERIOD", "3")
    b = train_detectron2(config, tmp_path / "b", "TEST.EVAL_PERIOD", "3")
    for part in ("model", "distiller") if name == "distilled" else ("model",):
        assert_same_tensors(checkpoint(tmp_path / "a")[part], checkpoint(tmp_path / "b")[part])
    data = f"{place}/data.yaml:val"
    ours, theirs = a["figures"][data], b["figures"][data]["depth"]
    assert theirs == pytest.approx({name: ours[name] for name in FIGURES}, abs=1e-6)
    assert a["best"]["metric"] == b["best"]["metric"] == "AbsRel"
    assert a["best"]["iteration"] == b["best"]["iteration"]
    assert losses(tmp_path / "a")[0].keys() == losses(tmp_path / "b")[0].keys()


def test_a_run_of_one_resumes_in_the_other(place, tmp_path):
    config, more = place / "distilled.yaml", ("SOLVER.CHECKPOINTS_KEPT", "9")
    train_detectron2(config, tmp_path / "whole", *more)
    train_embedded(config, tmp_path / "parts", *more)
    for name in ("model_0000005.pth", "model_final.pth", "model_best.pth", "student_final.pth"):
        (tmp_path / "parts" / name).unlink()
    (tmp_path / "parts/last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(config, tmp_path / "parts", *more, resume=True)
    for part in ("model", "distiller"):
        assert_same_tensors(
            checkpoint(tmp_path / "whole")[part], checkpoint(tmp_path / "parts")[part]
        )


def test_two_processes_score_as_one_does(place, tmp_path):
    """To the last bit: each scores one of the two test images."""
    config, data = place / "student.yaml", f"{place}/data.yaml:val"
    weights = ("MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.SEM_SEG_HEAD.AUX_WEIGHT", "0.0")
    weights += ("MODEL.WEIGHTS", str(place / "teacher.pth"), "SOLVER.IMS_PER_BATCH", "4")
    found = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}"
        train_detectron2_evaluation(config, output, *weights, num_gpus=processes)
        found.append(json.loads((output / "evaluation.json").read_text())["figures"][data])
    assert found[0] == found[1] and found[0]["depth"]["AbsRel"] > 0


def train_detectron2_evaluation(config: Path, output: Path, *words: str, num_gpus: int) -> None:
    launch_run(str(config), [*words, "OUTPUT_DIR", str(output)], eval_only=True, num_gpus=num_gpus)


def test_two_processes_train(place, tmp_path):
    config, words = place / "distilled.yaml", ("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "2")
    results = train_detectron2(config, tmp_path / "run", *words, num_gpus=2)
    assert results["figures"][f"{place}/data.yaml:val"]["depth"]["AbsRel"] > 0
    assert {"loss_depth", "loss_contrast", "loss_cwd"} <= losses(tmp_path / "run")[0].keys()


def test_images_without_targets(place, tmp_path):
    words = ("DATASETS.UNLABELED", f"['{place}/data.yaml:train']", "DATASETS.TRAIN", "[]")
    train_detectron2(place / "distilled.yaml", tmp_path / "run", *words)
    assert losses(tmp_path / "run")[0]["loss_depth"] == 0


def test_predict_and_doctor(place, tmp_path, capsys):
    flags = ["--runtime", "detectron2", "--config-file", str(place / "distilled.yaml")]
    doctor([*flags, "--json", "OUTPUT_DIR", str(tmp_path / "out")])
    report = json.loads(capsys.readouterr().out)
    assert {found["kind"] for found in report["fix"]} <= {"teacher", "loss-weight"}
    words = ["--weights", str(place / "teacher.pth"), "--input", str(place / "images/0.png")]
    more = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.SEM_SEG_HEAD.AUX_WEIGHT", "0.0"]
    assert predict([*flags, *words, "--output", str(tmp_path / "p"), *more]) == 0
    values = np.load(tmp_path / "p/0.npy")
    assert values.shape == (48, 64) and (values > 0).all()


def test_detectron2s_own_mapper_does_not_read_depth(place):
    words = ["INPUT.MAPPER", "detectron2"]
    cfg = configure(str(place / "student.yaml"), words)
    (problem,) = checks.catalog_problems(
        cfg, ["synthetic_depth_val"], "DATASETS.TEST", scored=False
    )
    assert "use INPUT.MAPPER scale_crop" in problem
