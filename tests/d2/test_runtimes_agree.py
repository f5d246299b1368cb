"""The same step, run and checkpoint in both runtimes."""

from __future__ import annotations

import json

import pytest
import torch

from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.loss_log import LossLog
from afdcd.engine.step_cost import StepCost

from helpers.d2_runs import (
    RUNTIMES,
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
    train_embedded,
)

TERMS = {"loss_sem_seg", "loss_sem_seg_aux", "loss_logit_kd", "loss_reconstruction"}


def test_one_step_gives_the_same_losses(configs, tmp_path):
    config = configs / "distilled.yaml"
    train_embedded(config, tmp_path / "a", "SOLVER.MAX_ITER", "1")
    train_detectron2(config, tmp_path / "b", "SOLVER.MAX_ITER", "1")
    (a,), (b,) = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a.keys() == b.keys() == TERMS | {"loss_contrast"}
    for term, value in a.items():
        assert b[term] == pytest.approx(value, rel=1e-5), term


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_whole_runs_end_with_the_same_weights_and_scores(configs, tmp_path, name: str):
    config = configs / f"{name}.yaml"
    a = train_embedded(config, tmp_path / "a")
    b = train_detectron2(config, tmp_path / "b")
    for part in ("model", "distiller") if name == "distilled" else ("model",):
        assert_same_tensors(checkpoint(tmp_path / "a")[part], checkpoint(tmp_path / "b")[part])
    assert checkpoint(tmp_path / "a").keys() == checkpoint(tmp_path / "b").keys()
    ours, theirs = a["figures"]["camvid_val"], b["figures"]["camvid_val"]["sem_seg"]
    for figure in ("mIoU", "fwIoU", "mACC", "pACC", "IoU-Sky"):
        assert theirs[figure] == pytest.approx(ours[figure], abs=1e-6), figure


@pytest.mark.parametrize("first", RUNTIMES)
@pytest.mark.parametrize("second", RUNTIMES)
def test_a_checkpoint_of_one_resumes_in_the_other(configs, tmp_path, monkeypatch, first, second):
    config, whole, parts = configs / "distilled.yaml", tmp_path / "whole", tmp_path / "parts"
    RUNTIMES[second](config, whole, "SOLVER.CHECKPOINTS_KEPT", "9")
    RUNTIMES[first](config, parts, "SOLVER.CHECKPOINTS_KEPT", "9")
    for name in ("model_0000005.pth", "model_final.pth", "model_best.pth", "student_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    RUNTIMES[second](config, parts, "SOLVER.CHECKPOINTS_KEPT", "9", resume=True)
    a, b = checkpoint(whole), checkpoint(parts)
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])
    momenta = [state["optimizer"]["state"] for state in (a, b)]
    for index, state in momenta[0].items():
        assert_same_tensors(state, momenta[1][index])
    assert a["iteration"] == b["iteration"] == 7
    assert a["progress"]["best"] == b["progress"]["best"]


def test_parts_and_echo_do_the_same_in_both(configs, tmp_path):
    settings = ["SOLVER.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "4", "DATALOADER.ECHO", "2"]
    settings += ["SOLVER.MAX_ITER", "5"]
    train_embedded(configs / "distilled.yaml", tmp_path / "a", *settings)
    train_detectron2(configs / "distilled.yaml", tmp_path / "b", *settings)
    a, b = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])


def test_throughput_is_in_the_metrics_of_both(configs, tmp_path):
    for name, train in RUNTIMES.items():
        train(configs / "student.yaml", tmp_path / name, "SOLVER.MAX_ITER", "2")
        lines = (tmp_path / name / "metrics.json").read_text().splitlines()
        figures = next(f for f in map(json.loads, lines) if "total_loss" in f)
        assert 0 < figures["data_share"] < 1, name
        step = figures["data_time"] / figures["data_share"]
        assert figures["images_per_second"] == pytest.approx(2 / step), name


@pytest.mark.parametrize("processes", [1, 2])
def test_measuring_what_a_step_costs_changes_nothing(
    configs, tmp_path, monkeypatch, processes: int
):
    settings = ["SOLVER.MAX_ITER", "24", "SOLVER.IMS_PER_BATCH", "4"]
    config = configs / "distilled.yaml"
    measured = train_detectron2(config, tmp_path / "a", *settings, num_gpus=processes)
    lines = map(json.loads, (tmp_path / "a/metrics.json").read_text().splitlines())
    found = [(f["iteration"], f["times_student"]) for f in lines if "times_student" in f]
    assert found == [(19, measured["times_student"])] and found[0][1] > 0

    # Imported by every process; the test's own forgets it afterwards.
    monkeypatch.setattr(StepCost, "after_step", StepCost.after_step)
    (tmp_path / "unmeasured.py").write_text(
        "from afdcd.engine.step_cost import StepCost\n"
        "StepCost.after_step = lambda self, batch, aside=0.0: None\n"
    )
    settings += ["IMPORTS", f"['{tmp_path}/unmeasured.py']"]
    unmeasured = train_detectron2(config, tmp_path / "b", *settings, num_gpus=processes)
    assert unmeasured["times_student"] is None
    a, b = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])


def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(configs, tmp_path, monkeypatch):
    """Noticed late, as on a GPU."""
    monkeypatch.setattr(LossLog, "note", _note_late)
    with pytest.raises(NonFiniteLoss, match="loss_a is not finite at iteration 1"):
        train_detectron2(configs / "student.yaml", tmp_path / "run")
    assert not list((tmp_path / "run").glob("model_*"))


def _note_late(self, iteration, losses, figures=None):
    values = torch.tensor([float("nan") if iteration == 1 else 1.0])
    self._pending.append((iteration, ["loss_a"], values))
