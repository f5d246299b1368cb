"""What a finished run leaves is what is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from afdcd.engine.results import read_run, results_of, write_results
from afdcd.engine.state import TrainingState


def state(**values) -> TrainingState:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(model, optimizer, scaler, max_iter=8, seed=3, **values)


def write(folder: Path, figures: dict) -> None:
    write_results(folder, results_of(state(iteration=8, seconds=4.0), figures))
    (folder / "config.yaml").write_text(yaml.safe_dump({"SEED": 3, "SOLVER": {"MAX_ITER": 8}}))


def test_written_and_read(tmp_path):
    write(tmp_path, {"val": {"sem_seg": {"mIoU": 40.5, "IoU-c": math.nan}}})
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["iterations"], content["seconds_per_step"], content["seed"]) == (8, 0.5, 3)
    run = read_run(tmp_path)
    assert run.figures == {"val": {"sem_seg.mIoU": 40.5, "sem_seg.IoU-c": None}}
    assert (run.folder, run.seed, run.seconds) == (tmp_path, 3, 4.0)
    assert run.settings == {"SEED": 3, "SOLVER.MAX_ITER": 8}


def test_times_and_costs(tmp_path):
    done = state(iteration=8, seconds=4.0, recording_seconds=1.5, times_student=2.5)
    write_results(tmp_path, results_of(done, {}))
    (tmp_path / "config.yaml").write_text("SEED: 3\n")
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["seconds"], content["seconds_recording"]) == (4.0, 1.5)
    assert (content["seconds_together"], content["times_student"]) == (5.5, 2.5)
    run = read_run(tmp_path)
    assert (run.seconds, run.seconds_recording, run.seconds_together) == (4.0, 1.5, 5.5)
    assert run.times_student == 2.5


def test_results_of_an_older_version(tmp_path):
    content = results_of(state(iteration=8, seconds=4.0), {})
    for key in ("seconds_recording", "seconds_together", "times_student"):
        del content[key]
    write_results(tmp_path, content)
    (tmp_path / "config.yaml").write_text("SEED: 3\n")
    run = read_run(tmp_path)
    assert (run.seconds_recording, run.seconds_together, run.times_student) == (0.0, 4.0, None)


def test_a_checkpoint_keeps_times_and_costs():
    done = state(seconds=4.0, recording_seconds=1.5, times_student=2.5)
    content, read = done.content(), state()
    read.load(content)
    assert (read.recording_seconds, read.times_student) == (1.5, 2.5)
    del content["progress"]["recording_seconds"], content["progress"]["times_student"]
    read.load(content)
    assert (read.recording_seconds, read.times_student) == (0.0, None)


def test_before_the_first_step_nothing_is_divided_by_zero():
    assert results_of(state(), {})["seconds_per_step"] == 0


def test_an_unfinished_run(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results\.json: .*or it isn't finished"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"seed": 1, "figures": [], "seconds": 1}'])
def test_other_files(tmp_path, text: str):
    write(tmp_path, {})
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match="isn't what a finished run writes"):
        read_run(tmp_path)
