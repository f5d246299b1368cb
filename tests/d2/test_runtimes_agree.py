"""The same step, run and checkpoint in both runtimes."""

from __future__ import annotations

import pytest

from d2_runs import (
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
