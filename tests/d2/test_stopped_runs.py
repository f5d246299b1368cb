"""Runs in Detectron2's runtime that are stopped, killed or spoilt, and go on as if they weren't."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")

from afdcd.cli.train_net import main
from afdcd.d2.step_trainer import StepTrainer
from afdcd.d2.trainer import DistillTrainer

from helpers.d2_runs import assert_same_tensors, checkpoint, train_detectron2

ROOT = Path(__file__).parents[2]


def command(configs: Path, output: Path, *flags: str) -> list[str]:
    words = ["--runtime", "detectron2", "--num-gpus", "0", *flags, "--config-file"]
    return [*words, str(configs / "distilled.yaml"), "OUTPUT_DIR", str(output)]


@pytest.fixture
def whole(configs, tmp_path) -> dict:
    train_detectron2(configs / "distilled.yaml", tmp_path / "whole", num_gpus=0)
    return checkpoint(tmp_path / "whole")


def test_interrupted_and_resumed(configs, tmp_path, monkeypatch, capsys, whole):
    step = StepTrainer.run_step

    def step_and_interrupt(self) -> None:
        step(self)
        if self.iter == 3:  # not at a checkpoint
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StepTrainer, "run_step", step_and_interrupt)
    output = tmp_path / "parts"
    assert main(command(configs, output)) == 130
    assert "its state is saved: go on with --resume" in capsys.readouterr().err
    assert (output / "last_checkpoint").read_text() == "model_0000003.pth"
    monkeypatch.setattr(StepTrainer, "run_step", step)
    assert main(command(configs, output, "--resume")) == 0
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(output)[part], whole[part])


@pytest.mark.parametrize("fails_at", [3, 8])
def test_an_evaluation_that_fails_costs_nothing(configs, tmp_path, monkeypatch, fails_at: int):
    overrides = ("TEST.EVAL_PERIOD", "3")  # as the checkpoints', and at the end
    config = configs / "distilled.yaml"
    expected = train_detectron2(config, tmp_path / "scored", *overrides, num_gpus=0)
    evaluated = DistillTrainer.evaluate_student

    def fail(self):
        if self.state.iteration == fails_at:
            raise MemoryError("no room for the scores")
        return evaluated(self)

    monkeypatch.setattr(DistillTrainer, "evaluate_student", fail)
    output = tmp_path / "parts"
    with pytest.raises(MemoryError):
        train_detectron2(config, output, *overrides, num_gpus=0)
    assert checkpoint(output, (output / "last_checkpoint").read_text())["iteration"] == fails_at - 1
    assert (output / "student_final.pth").exists() == (fails_at == 8)
    monkeypatch.setattr(DistillTrainer, "evaluate_student", evaluated)
    results = train_detectron2(config, output, *overrides, num_gpus=0, resume=True)
    assert results["figures"] == expected["figures"] and results["best"] == expected["best"]
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(output)[part], checkpoint(tmp_path / "scored")[part])


def test_killed_while_writing_and_resumed(configs, tmp_path, whole):
    script = (
        "import os, signal, sys, torch\n"
        "from afdcd.cli.train_net import main\n"
        "save, calls = torch.save, []\n"
        "def killed(content, file):\n"
        "    calls.append(0)\n"
        "    if 'optimizer' in content and len(calls) > 1:\n"
        "        file.write(b'half a file')\n"
        "        file.flush()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(content, file)\n"
        "torch.save = killed\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    output = tmp_path / "killed"
    words = [sys.executable, "-c", script, *command(configs, output)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (output / "last_checkpoint").read_text() == "model_0000002.pth"
    assert main(command(configs, output, "--resume")) == 0
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(output)[part], whole[part])
    assert not list(output.glob(".*unfinished"))


def test_what_spoils_a_run_is_said_in_a_line(configs, tmp_path, monkeypatch, capsys):
    step = StepTrainer.run_step

    def spoil(self) -> None:
        if self.iter == 4:
            with torch.no_grad():
                self.model.distiller.afdcd.projector[0].weight.fill_(float("inf"))
        step(self)

    monkeypatch.setattr(StepTrainer, "run_step", spoil)
    assert main(command(configs, tmp_path / "spoilt")) == 1
    said = capsys.readouterr().err.rpartition("error: ")[2]
    assert "at iteration 4" in said and "loss_reconstruction" in said and "Traceback" not in said
    monkeypatch.setattr(StepTrainer, "run_step", step)

    def truncate(self) -> None:
        for image in (tmp_path / "data/camvid/train").iterdir():
            image.write_bytes(b"")  # after the check before the start
        step(self)

    monkeypatch.setattr(StepTrainer, "run_step", truncate)
    assert main(command(configs, tmp_path / "truncated")) == 2
    said = capsys.readouterr().err.rpartition("error: ")[2]
    assert "(0 bytes) can't be read as an image" in said and "Traceback" not in said
