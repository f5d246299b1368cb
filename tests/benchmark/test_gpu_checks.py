"""tools/gpu_check.py's checks, on the CPU at sizes that take seconds; times aren't judged."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict

import pytest
import torch

from afdcd.benchmark import memory
from afdcd.benchmark.gpu import processes, speed
from afdcd.benchmark.gpu.numerics import Maps, contrast_check
from afdcd.benchmark.gpu.plan import Plan
from afdcd.benchmark.gpu.processes import two_processes_check
from afdcd.benchmark.gpu.rows import Check, Figure, Skipped, rows_of, rows_text
from afdcd.benchmark.gpu.runs import Outcome, Trial, data_in, resume_check
from afdcd.benchmark.gpu.speed import Steps
from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.timing import Times
from afdcd.cli import gpu_check
from afdcd.data.datasets import datasets_root
from afdcd.losses.afdcd.kernels import contrast_torch
from afdcd.losses.afdcd.kernels.masked_conv import _MaskedConv

TINY = Setting(crop=(64, 64), batch=2, teacher_depth=18, width=0.125, pool=0)
MAPS = (Maps((1, 64, 8, 8), groups=4), Maps((1, 8, 8, 8), groups=4))
TRITON_MAPS = (Maps((1, 4, 4, 4), groups=2),)
TIMED = ("step: ", "peak memory: ")


@pytest.fixture
def trial(configs, tmp_path) -> Trial:
    return Trial(
        configs / "distilled.yaml",
        configs / "teacher.yaml",
        tmp_path / "runs",
        "cpu",
        weights=tmp_path / "teacher.pth",
        iterations=4,
        dims=16,
    )


@pytest.fixture
def plan(trial) -> Plan:
    return Plan("cpu", trial, TINY, TINY, MAPS, TRITON_MAPS, dims=16, repeats=1)


def measure_here(setting: Setting, variant: Variant) -> dict[str, float]:
    """`afdcd.benchmark.memory.measure_step` without a process of its own, which takes seconds."""
    task = {"setting": asdict(setting), "variant": asdict(variant), "threads": 1}
    return memory._task({"kind": "step", **task})


@pytest.mark.slow
def test_every_check_on_the_cpu(plan, monkeypatch):
    monkeypatch.setattr(speed, "measure_step", measure_here)
    rows = gpu_check.check(plan)
    names = [check.name for check in plan.checks()]
    assert all(any(row.name.startswith(name) for row in rows) for name in names)
    for row in rows:
        if row.name.startswith(TIMED):
            assert row.figure is not None and row.figure > 0, row
        elif row.name == "two processes, SyncBN":
            assert row.passed is None, row
        elif "triton" in row.name and row.passed is None:
            assert "Triton" in row.note, row
        else:
            assert row.passed, row


def test_figures_errors_and_what_is_left_out():
    def broken() -> dict[str, Figure]:
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with ...")

    def failed_process() -> dict[str, Figure]:
        raise RuntimeError("the run ended with exit code 1:\nTraceback\n  KeyError: 'x'\n")

    def skipped() -> dict[str, Figure]:
        raise Skipped("one GPU")

    figures = {"a": Figure(1.0, 1.0), "b": Figure(1.1, 1.0), "c": Figure(math.nan, 1.0)}
    rows = rows_of(Check("ours", lambda: figures), "cpu")
    assert [row.passed for row in rows] == [True, False, False]
    (row,) = rows_of(Check("kernel", broken), "cpu")
    assert row.passed is False
    assert row.note == "RuntimeError: CUDA error: an illegal memory access"
    (process,) = rows_of(Check("process", failed_process), "cpu")
    assert process.note == "RuntimeError: the run ended with exit code 1: KeyError: 'x'"
    (left_out,) = rows_of(Check("two", skipped), "cpu")
    assert left_out.passed is None and left_out.note == "one GPU"
    text = rows_text([*rows, row, left_out])
    assert "1 passed, 3 failed, 1 skipped\nFailed:\n  ours: b\n  ours: c\n  kernel" in text


def test_a_broken_contrast_is_reported(monkeypatch):
    contrast = contrast_torch.contrast
    check = contrast_check(MAPS[0], "torch", "float32", "cpu")
    assert all(row.passed for row in rows_of(check, "cpu"))

    def wrong(*args, **options):
        value, gradient = contrast(*args, **options)
        return value, gradient * 1.001

    monkeypatch.setattr(contrast_torch, "contrast", wrong)
    value, gradient = rows_of(check, "cpu")
    assert value.passed and gradient.passed is False
    assert gradient.figure == pytest.approx(0.001, rel=0.01)

    def stops(*args, **options):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(contrast_torch, "contrast", stops)
    (row,) = rows_of(check, "cpu")
    assert row.passed is False and row.note == "RuntimeError: no kernel image is available"


def test_a_broken_masked_convolution_is_reported(plan, monkeypatch):
    forward = _MaskedConv.forward
    monkeypatch.setattr(
        _MaskedConv, "forward", staticmethod(lambda *args: forward(*args).mul(1.01))
    )
    always, never = (c for c in plan.checks() if "masked convolution" in c.name)
    assert {row.passed for row in rows_of(always, "cpu")} == {False}
    assert {row.passed for row in rows_of(never, "cpu")} == {True}


def test_a_run_that_resumes_wrongly_is_reported(trial, monkeypatch):
    train = Trial.train

    def other_rate(self, name, *words, resume=False):
        more = ("SOLVER.BASE_LR", "0.021") if resume else ()
        return train(self, name, *words, *more, resume=resume)

    monkeypatch.setattr(Trial, "train", other_rate)
    (row,) = rows_of(resume_check(trial), "cpu")
    assert row.passed is False and row.limit == 0 and row.figure > 0


def test_what_equal_runs_may_differ_by_on_a_gpu(tmp_path, monkeypatch):
    trial = Trial(tmp_path, tmp_path, tmp_path, "cuda")
    runs = {"float32": 1.0, "float32, again": 1.001}
    outcomes = {name: Outcome({"total_loss": 1.0}, torch.tensor([w])) for name, w in runs.items()}
    monkeypatch.setattr(Trial, "train", lambda self, name: outcomes[name])
    one, other = (Outcome({"total_loss": loss}, torch.ones(1)) for loss in (1.0, 1.1))
    value, limit, note = trial.same_run(one, other)
    assert value == pytest.approx(0.1 / 1.1, rel=1e-5)
    assert limit == pytest.approx(0.004, rel=0.01)
    assert note == "not bit by bit: the same run twice differs by 0.001"
    outcomes["float32, again"] = outcomes["float32"]
    assert trial.same_run(one, one)[:2] == (0.0, 1e-5)


def test_half_the_batch_where_memory_is_short(monkeypatch):
    tried = []

    def time_steps(setting, chosen, *, repeats):
        tried.append(setting.batch)
        if setting.batch > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return {v.name: Times({"all": [1.0 if v.alone else 1.5]}) for v in chosen}

    def measure_step(setting, variant):
        raise RuntimeError("measuring the memory failed:\ntorch.OutOfMemoryError: CUDA")

    monkeypatch.setattr(speed, "time_steps", time_steps)
    monkeypatch.setattr(speed, "measure_step", measure_step)
    steps = Steps(Setting(batch=8), dims=16, repeats=1)
    rows = rows_of(steps.times_check(), "cpu")
    assert tried == [8, 4, 2]
    assert {row.name.split()[1]: row.passed for row in rows} == {"recorded": False, "compact": True}
    assert all(row.note.endswith("2 images of 256x512") for row in rows)
    (row,) = rows_of(steps.memory_check(), "cpu")
    assert row.passed is False and "OutOfMemoryError" in row.note


def test_the_data_folder_is_restored(tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    before = datasets_root()
    with data_in(tmp_path):
        assert datasets_root() == tmp_path
    assert datasets_root() == before


def test_exit_codes(tmp_path, monkeypatch, capsys):
    figure = Figure(0.5, 1.0)
    monkeypatch.setattr(Plan, "checks", lambda self: [Check("one", lambda: {"part": figure})])
    out = tmp_path / "rows.json"
    assert gpu_check.main(["--device", "cpu", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    (row,) = content["rows"]
    assert row["name"] == "one: part" and row["passed"] is True and row["limit"] == 1.0
    assert content["machine"]["torch"] == torch.__version__
    figure = Figure(2.0, 1.0)
    assert gpu_check.main(["--device", "cpu"]) == 1
    assert re.search(r"one: part +2 +1 +FAILED", capsys.readouterr().out)
    assert gpu_check.main(["--device", "cpu", "--configs", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--crop", "64", "512"], ["--batch", "1"], ["--dims", "0"]])
def test_sizes_that_cannot_be(flags, capsys):
    assert gpu_check.main(["--device", "cpu", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def run_instead(monkeypatch, code: str) -> None:
    """Let the run of two processes be some Python code."""
    monkeypatch.setattr(processes, "_check_possible", lambda: None)
    command = processes._run
    monkeypatch.setattr(processes, "_run", lambda words: command([words[0], "-c", code]))


@pytest.mark.parametrize(
    ("code", "passed", "note"),
    [
        ("", True, "4 iterations"),
        ("raise KeyError('x')", False, "exit code 1: KeyError: 'x'"),
        ("import time; time.sleep(60)", False, "didn't end within"),
    ],
)
def test_two_processes(trial, monkeypatch, code: str, passed: bool, note: str):
    run_instead(monkeypatch, code)
    monkeypatch.setattr(processes, "LONGEST", 1 if "sleep" in code else 30)
    (row,) = rows_of(two_processes_check(trial), "cpu")
    assert row.passed is passed and note in row.note


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "no GPU to check: this PyTorch" in capsys.readouterr().err
