"""Two processes do what one does."""

from __future__ import annotations

import cv2
import pytest
import torch

from helpers.d2_runs import checkpoint, losses, train_detectron2

# BatchNorm's statistics and dropout's draws are per process: without them the rest must be equal.
FIXED = [
    *("MODEL.RESNETS.NORM", "FrozenBN"),
    *("MODEL.SEM_SEG_HEAD.NORM", "FrozenBN"),
    *("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.0"),
    *("MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"),
    *("MODEL.SEM_SEG_HEAD.AUX_WEIGHT", "0.0"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res5']"),
    *("SOLVER.IMS_PER_BATCH", "4"),
    *("SOLVER.MAX_ITER", "1"),
    *("INPUT.SCALE_CROP.SCALES", "[1.0, 1.0]"),
]


def test_two_processes_average_the_gradients_of_one(configs, tmp_path):
    # Each process averages the task's loss over its own labelled pixels: all must be labelled,
    # and none may be padding.
    for path in (configs.parent / "data/camvid/trainannot").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels[labels > 10] = 0
        assert cv2.imwrite(str(path), labels)
    one, two = tmp_path / "one", tmp_path / "two"
    train_detectron2(configs / "distilled.yaml", one, *FIXED)
    train_detectron2(configs / "distilled.yaml", two, *FIXED, num_gpus=2)
    a, b = checkpoint(one), checkpoint(two)
    # After one step the momentum buffers are the gradients (with weight decay).
    for index, state in a["optimizer"]["state"].items():
        torch.testing.assert_close(
            b["optimizer"]["state"][index]["momentum_buffer"],
            state["momentum_buffer"],
            rtol=1e-3,
            atol=1e-5,
        )
    for part in ("model", "distiller"):
        for name, value in a[part].items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(b[part][name], value, rtol=1e-4, atol=1e-6)
    (first,), (second,) = losses(one), losses(two)
    assert first.keys() == second.keys()
    for term, value in first.items():
        assert second[term] == pytest.approx(value, rel=1e-3), term


def test_two_processes_in_parts_average_the_gradients_of_one(configs, tmp_path):
    """Every process works on its half in two parts: masks are the whole's."""
    for path in (configs.parent / "data/camvid/trainannot").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels[labels > 10] = 0
        assert cv2.imwrite(str(path), labels)
    one, two = tmp_path / "one", tmp_path / "two"
    train_detectron2(configs / "distilled.yaml", one, *FIXED)
    settings = [*FIXED, "SOLVER.ACCUMULATE", "2"]
    train_detectron2(configs / "distilled.yaml", two, *settings, num_gpus=2)
    a, b = checkpoint(one), checkpoint(two)
    for index, state in a["optimizer"]["state"].items():
        torch.testing.assert_close(
            b["optimizer"]["state"][index]["momentum_buffer"],
            state["momentum_buffer"],
            rtol=1e-3,
            atol=1e-5,
        )


def test_two_processes_resume(configs, tmp_path):
    config, whole, parts = configs / "distilled.yaml", tmp_path / "whole", tmp_path / "parts"
    keep = ["SOLVER.CHECKPOINTS_KEPT", "9", "SOLVER.IMS_PER_BATCH", "4"]
    train_detectron2(config, whole, *keep, num_gpus=2)
    train_detectron2(config, parts, *keep, num_gpus=2)
    for name in ("model_0000005.pth", "model_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(config, parts, *keep, num_gpus=2, resume=True)
    a, b = checkpoint(whole), checkpoint(parts)
    for name, value in a["model"].items():
        torch.testing.assert_close(b["model"][name], value, rtol=1e-5, atol=1e-7)
