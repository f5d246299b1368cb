"""What losses compare with: kept while a batch repeats, left out where no loss asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from afdcd.distill.teacher import FrozenTeacher
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure

LOSSES = "MODEL.DISTILLER.LOSSES"


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Images that the teacher was given, call by call."""
    found: list[int] = []
    features = FrozenTeacher.features

    def counted(self: FrozenTeacher, inputs: list[Any], paths: list[str]) -> Any:
        found.append(len(inputs))
        return features(self, inputs, paths)

    monkeypatch.setattr(FrozenTeacher, "features", counted)
    return found


def train(configs: Path, output: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    words = ["OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "8", *overrides]
    run(configure(str(configs / "distilled.yaml"), words), resume=resume)
    return torch.load(output / "model_final.pth", weights_only=True)


def test_the_teacher_runs_once_for_a_batch_that_repeats(configs, tmp_path, calls):
    train(configs, tmp_path / "run", "DATALOADER.ECHO", "4")
    assert calls == [2, 2]


def test_parts_of_a_batch_that_repeats_are_kept_apart(configs, tmp_path, calls):
    words = ("DATALOADER.ECHO", "4", "SOLVER.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "4")
    train(configs, tmp_path / "run", *words)
    assert calls == [2, 2, 2, 2]


def test_keeping_changes_nothing(configs, tmp_path, monkeypatch):
    echo = ("DATALOADER.ECHO", "4")
    kept = train(configs, tmp_path / "kept", *echo)
    monkeypatch.setattr("afdcd.distill.targets.KeptTargets.get", lambda *_: None)
    anew = train(configs, tmp_path / "anew", *echo)
    for name, value in kept["model"].items():
        assert torch.equal(value, anew["model"][name]), name


def test_losses_of_a_part_of_the_run(configs, tmp_path, calls):
    """Steps 2, 4 and 6 have both losses, 0 to 7 but these none."""
    schedule = "{START: 0.25, END: 1.0, EVERY: 2}"
    words = [f"{LOSSES}.{label}.SCHEDULE" for label in ("afdcd", "logit_kd")]
    settings = (words[0], schedule, words[1], schedule)
    whole = train(configs, tmp_path / "whole", *settings)
    assert calls == [2, 2, 2]
    # A run that was stopped between them goes on exactly.
    parts = tmp_path / "parts"
    train(configs, parts, *settings)
    for name in ("model_0000005.pth", "model_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    resumed = train(configs, parts, *settings, resume=True)
    for part in ("model", "distiller"):
        for name, value in whole[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, resumed[part][name]), name


def test_a_loss_that_ended_leaves_its_layers_as_they_are(configs, tmp_path):
    words = (f"{LOSSES}.afdcd.SCHEDULE", "{END: 0.375}", "SOLVER.CHECKPOINTS_KEPT", "9")
    last = train(configs, tmp_path / "run", *words)["distiller"]
    third = torch.load(tmp_path / "run/model_0000002.pth", weights_only=True)["distiller"]
    assert {name for name in last if name.startswith("afdcd")}
    for name, value in third.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, last[name]), name
