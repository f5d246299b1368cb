"""Recorded teachers and compact targets in Detectron2's runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")

from afdcd.cli.record_teacher import main as record_teacher
from afdcd.data.view_store import ViewStore
from afdcd.distill.teacher import FrozenTeacher

from helpers.d2_runs import (
    RUNTIMES,
    assert_same_tensors,
    checkpoint,
    train_detectron2,
    train_embedded,
)

LOSSES = "MODEL.DISTILLER.LOSSES"
TEACHER = "MODEL.DISTILLER.TEACHER"
COMPACT = [f"{LOSSES}.afdcd.DIMS", "16"]


def recorded(folder: Path, views: int = 2) -> list[str]:
    return [f"{TEACHER}.RECORD.FOLDER", str(folder), f"{TEACHER}.RECORD.VIEWS", str(views)]


def assert_equal_runs(one: Path, other: Path) -> None:
    a, b = checkpoint(one), checkpoint(other)
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])


def test_both_runtimes_do_the_same_and_share_a_record(configs, tmp_path, monkeypatch):
    config, settings = configs / "distilled.yaml", [*COMPACT, *recorded(tmp_path / "record")]
    flags = ["--runtime", "detectron2", "--config-file", str(config), *settings]
    assert record_teacher(flags) == 0
    assert len(list(ViewStore(tmp_path / "record/views").there())) == 12
    monkeypatch.setattr(FrozenTeacher, "__init__", None)
    for name, train in RUNTIMES.items():
        train(config, tmp_path / name, *settings)
    assert_equal_runs(tmp_path / "embedded", tmp_path / "detectron2")


def test_schedules_echo_and_resolution_do_the_same(configs, tmp_path):
    settings = [*COMPACT, "DATALOADER.ECHO", "2", f"{TEACHER}.RESOLUTION", "2"]
    settings += ["INPUT.MIN_SIZE_TRAIN", "[24]", "INPUT.MIN_SIZE_TEST", "24"]
    settings += [f"{LOSSES}.afdcd.SCHEDULE", "{START: 0.25, FADE: 0.5}", f"{TEACHER}.FLIP", "True"]
    a = train_embedded(configs / "distilled.yaml", tmp_path / "a", *settings)
    b = train_detectron2(configs / "distilled.yaml", tmp_path / "b", *settings)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    assert b["teacher"]["mIoU"] == pytest.approx(a["teacher"]["mIoU"], abs=1e-6)


def test_a_compact_run_resumes(configs, tmp_path):
    config, whole, parts = configs / "distilled.yaml", tmp_path / "whole", tmp_path / "parts"
    settings = [*COMPACT, "SOLVER.CHECKPOINTS_KEPT", "9"]
    train_detectron2(config, whole, *settings)
    train_detectron2(config, parts, *settings)
    for name in ("model_0000005.pth", "model_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(config, parts, *settings, resume=True)
    assert_equal_runs(whole, parts)


def test_two_processes_with_a_loss_that_ends(configs, tmp_path):
    """Recorded as it goes by both; a loss that has ended keeps its layers as they are."""
    settings = [*COMPACT, *recorded(tmp_path / "record"), "SOLVER.IMS_PER_BATCH", "4"]
    settings += [f"{LOSSES}.afdcd.SCHEDULE", "{END: 0.375}", "SOLVER.CHECKPOINTS_KEPT", "9"]
    train_detectron2(configs / "distilled.yaml", tmp_path / "run", *settings, num_gpus=2)
    third = checkpoint(tmp_path / "run", "model_0000002.pth")["distiller"]
    last = checkpoint(tmp_path / "run")["distiller"]
    layers = [name for name in third if name.startswith("afdcd")]
    assert layers
    for name in layers:
        assert torch.equal(third[name], last[name]), name
    assert list(ViewStore(tmp_path / "record/views").there())
    # The same again from what is recorded.
    train_detectron2(configs / "distilled.yaml", tmp_path / "again", *settings, num_gpus=2)
    a, b = checkpoint(tmp_path / "run"), checkpoint(tmp_path / "again")
    for name, value in a["model"].items():
        torch.testing.assert_close(b["model"][name], value, rtol=1e-5, atol=1e-7)
