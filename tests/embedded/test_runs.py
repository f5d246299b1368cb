"""Whole runs: train, evaluate, resume, export."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from afdcd.cli.train_net import main
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.embedded.trainer import Trainer
from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.interrupt import Interrupted
from afdcd.engine.step_cost import StepCost
from afdcd.engine.step_runner import StepRunner
from afdcd.evaluation import ConfusionMatrix
from afdcd.models import build_segmentor_from_config, load_weights
from afdcd.tasks import SemanticSegmentation
from afdcd.utils.problems import SetupError


def train(configs: Path, name: str, output: Path, *overrides: str, resume: bool = False) -> dict:
    words = ["OUTPUT_DIR", str(output), *overrides]
    return run(configure(str(configs / f"{name}.yaml"), words), resume=resume)


def content(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same(a: dict, b: dict, where: str = "") -> None:
    """Equal to the last bit, but for the time that it took."""
    assert a.keys() == b.keys(), where
    for key in a:
        if key in ("seconds", "recording_seconds", "times_student"):
            continue
        x, y, here = a[key], b[key], f"{where}/{key}"
        if isinstance(x, dict):
            assert_same(x, y, here)
        elif isinstance(x, torch.Tensor):
            assert torch.equal(x, y), here
        else:
            assert x == y or (x != x and y != y), here


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_files_of_a_run(configs, tmp_path, name: str):
    output = tmp_path / "run"
    results = train(configs, name, output, "TEST.EVAL_PERIOD", "4")
    assert {p.name for p in output.iterdir() if not p.name.startswith("events")} == {
        "config.yaml",
        "last_checkpoint",
        "metrics.json",
        "model_0000002.pth",
        "model_0000005.pth",
        "model_best.pth",
        "model_final.pth",
        "results.json",
        "student_final.pth",
    }
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    terms = {key for line in lines for key in line}
    assert {"loss_sem_seg", "loss_sem_seg_aux", "total_loss", "lr"} <= terms
    assert {"camvid_val/mIoU", "camvid_val/pACC", "camvid_val/mBoundaryIoU"} <= terms
    assert {"camvid_val/IoU-Sky", "camvid_val/BoundaryIoU-Sky"} <= terms
    distilled = name == "distilled"
    for term in ("loss_logit_kd", "loss_reconstruction", "loss_contrast"):
        assert (term in terms) == distilled
    assert bool(results["teacher"]) == distilled
    assert json.loads((output / "results.json").read_text())["iterations"] == 8


def test_checkpoints_hold_the_student_as_model(configs, tmp_path):
    output = tmp_path / "run"
    train(configs, "distilled", output)
    final, export = content(output / "model_final.pth"), content(output / "student_final.pth")
    plain = build_segmentor_from_config(configure(str(configs / "student.yaml"), []))
    assert final["model"].keys() == plain.state_dict().keys()
    assert list(export) == ["model"]
    assert_same(export["model"], final["model"])
    assert any("projector" in name for name in final["distiller"])
    assert not any("teacher" in name for name in final["distiller"])
    assert final["iteration"] == 7
    assert load_weights(plain, output / "student_final.pth").part == "model"


def test_student_starts_alike_with_and_without_a_teacher(configs, tmp_path):
    from afdcd.embedded.build import build_for_training

    task = SemanticSegmentation.without_data(11)
    alone, _ = build_for_training(
        EmbeddedRuntime.configure(str(configs / "student.yaml"), []), 5, task
    )
    distiller, _ = build_for_training(
        EmbeddedRuntime.configure(str(configs / "distilled.yaml"), []), 5, task
    )
    assert_same(dict(alone.state_dict()), dict(distiller.student.state_dict()))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_is_a_function_of_its_seed(configs, tmp_path, workers: str):
    train(configs, "distilled", tmp_path / "a")
    train(configs, "distilled", tmp_path / "b", "DATALOADER.NUM_WORKERS", workers)
    train(configs, "distilled", tmp_path / "c", "SEED", "6")
    a, b, c = (content(tmp_path / x / "model_final.pth") for x in "abc")
    assert_same(a, b)
    assert not torch.equal(
        a["distiller"]["afdcd.align.weight"], c["distiller"]["afdcd.align.weight"]
    )


@pytest.mark.parametrize("fails_at", [3, 6, 8])
def test_an_evaluation_that_fails_costs_nothing(configs, tmp_path, monkeypatch, fails_at: int):
    overrides = ("TEST.EVAL_PERIOD", "3")  # as the checkpoints', and at the end
    expected = train(configs, "distilled", tmp_path / "whole", *overrides)
    evaluated = Trainer._evaluate

    def fail(self, metrics):
        if self.state.iteration == fails_at:
            raise MemoryError("no room for the scores")
        return evaluated(self, metrics)

    monkeypatch.setattr(Trainer, "_evaluate", fail)
    output = tmp_path / "parts"
    with pytest.raises(MemoryError):
        train(configs, "distilled", output, *overrides)
    last = content(output / (output / "last_checkpoint").read_text())
    assert last["iteration"] == fails_at - 1
    assert (output / "student_final.pth").exists() == (fails_at == 8)
    monkeypatch.setattr(Trainer, "_evaluate", evaluated)
    results = train(configs, "distilled", output, *overrides, resume=True)
    assert results["figures"] == expected["figures"] and results["best"] == expected["best"]
    for name in ("model_final.pth", "model_best.pth", "student_final.pth"):
        assert_same(content(output / name), content(tmp_path / "whole" / name))
    scores = [
        [line for line in (folder / "metrics.json").read_text().splitlines() if "mIoU" in line]
        for folder in (output, tmp_path / "whole")
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 3


def test_interrupted_and_resumed_is_as_if_uninterrupted(configs, tmp_path, monkeypatch):
    train(configs, "distilled", tmp_path / "whole", "TEST.EVAL_PERIOD", "4")

    update = StepRunner.update

    def step_and_interrupt(self, batch, iteration):
        update(self, batch, iteration)
        if iteration == 4:  # not at a checkpoint
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StepRunner, "update", step_and_interrupt)
    with pytest.raises(Interrupted, match=r"after iteration 5; its state is saved.*--resume"):
        train(configs, "distilled", tmp_path / "parts", "TEST.EVAL_PERIOD", "4")
    assert (tmp_path / "parts/last_checkpoint").read_text() == "model_0000004.pth"
    monkeypatch.undo()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    train(configs, "distilled", tmp_path / "parts", "TEST.EVAL_PERIOD", "4", resume=True)
    for name in ("model_final.pth", "student_final.pth", "model_best.pth"):
        assert_same(content(tmp_path / "whole" / name), content(tmp_path / "parts" / name))


@pytest.mark.slow
def test_killed_and_resumed_is_as_if_uninterrupted(configs, tmp_path):
    """SIGKILL at random moments, until a resumed run gets through."""
    train(configs, "distilled", tmp_path / "whole", "SOLVER.MAX_ITER", "40")
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "afdcd.cli.train_net", "--resume"]
    command += ["--config-file", str(configs / "distilled.yaml"), "OUTPUT_DIR", str(output)]
    command += ["SOLVER.MAX_ITER", "40"]
    rng = random.Random(0)
    kills = 0
    for attempt in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if attempt < 3:
            # The set-up takes a while: wait until something is being written, then a bit.
            before = set(output.glob("model_*")) if output.is_dir() else set()
            while process.poll() is None and not (set(output.glob("model_*")) - before):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        elif process.wait() == 0:
            break
    assert kills >= 1
    assert_same(content(tmp_path / "whole/model_final.pth"), content(output / "model_final.pth"))
    iterations = [
        json.loads(line)["iteration"] for line in (output / "metrics.json").read_text().splitlines()
    ]
    assert iterations == sorted(iterations)
    assert not list(output.glob(".*unfinished*"))


def test_parts_and_echo_resume_exactly(configs, tmp_path):
    """From a checkpoint in the middle of a batch's uses."""
    settings = ["SOLVER.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "4", "DATALOADER.ECHO", "2"]
    settings += ["SOLVER.CHECKPOINTS_KEPT", "9"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(configs, "distilled", whole, *settings)
    shutil.copytree(whole, parts)
    for name in ("model_0000005.pth", "model_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    train(configs, "distilled", parts, *settings, resume=True)
    assert_same(content(whole / "model_final.pth"), content(parts / "model_final.pth"))


def test_echo_uses_each_batch_again(configs, tmp_path, monkeypatch):
    seen = []
    update = StepRunner.update

    def look(self, batch, iteration):
        seen.append([item["image"].sum().item() for item in batch])
        update(self, batch, iteration)

    monkeypatch.setattr(StepRunner, "update", look)
    train(configs, "student", tmp_path / "run", "DATALOADER.ECHO", "3", "SOLVER.MAX_ITER", "7")
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_throughput_is_logged(configs, tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(configs, "student", tmp_path / "run")
    assert "images/s" in caplog.text and "waiting for data" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    figures = next(line for line in lines if "total_loss" in line)
    assert 0 < figures["data_share"] < 1
    # One share and one time of waiting make the time of a step, and that the rate of two images.
    step = figures["data_time"] / figures["data_share"]
    assert figures["images_per_second"] == pytest.approx(2 / step)


def test_measuring_what_a_step_costs_changes_nothing(configs, tmp_path, monkeypatch, caplog):
    """The first steps of a run and of a resume; the student alone takes part in some of them."""
    long = ("SOLVER.MAX_ITER", "44", "SOLVER.CHECKPOINT_PERIOD", "22")
    with caplog.at_level("INFO"):
        results = train(configs, "distilled", tmp_path / "with", *long)
    assert caplog.text.count("times as long as the student's own") == 1
    monkeypatch.setattr(StepCost, "after_step", lambda self, batch, aside=0.0: None)
    train(configs, "distilled", tmp_path / "without", *long)
    for name in ("model_0000021.pth", "model_final.pth"):
        assert_same(content(tmp_path / "with" / name), content(tmp_path / "without" / name))
    monkeypatch.undo()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))

    def costs(folder: Path) -> list[tuple[int, float]]:
        lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
        return [(f["iteration"], f["times_student"]) for f in lines if "times_student" in f]

    assert costs(tmp_path / "with") == [(19, results["times_student"])]
    assert results["times_student"] > 0
    (tmp_path / "with/model_final.pth").unlink()
    (tmp_path / "with/last_checkpoint").write_text("model_0000021.pth")
    again = train(configs, "distilled", tmp_path / "with", *long, resume=True)
    assert costs(tmp_path / "with")[1:] == [(41, again["times_student"])]
    assert_same(*(content(tmp_path / x / "model_final.pth") for x in ("with", "without")))


def test_what_a_step_costs_outlives_a_short_resume(configs, tmp_path):
    long = ("SOLVER.MAX_ITER", "24", "SOLVER.CHECKPOINT_PERIOD", "22")
    first = train(configs, "distilled", tmp_path / "run", *long)
    (tmp_path / "run/model_final.pth").unlink()
    again = train(configs, "distilled", tmp_path / "run", *long, resume=True)
    assert again["times_student"] == first["times_student"] > 0


def test_impossible_parts_are_refused_before_training(configs, tmp_path):
    with pytest.raises(SetupError, match="IMS_PER_BATCH must be at least 8, since ASPPHead"):
        train(configs, "student", tmp_path / "run", "SOLVER.ACCUMULATE", "4")


def test_resuming_a_finished_run_changes_nothing(configs, tmp_path):
    first = train(configs, "student", tmp_path / "run")
    before = content(tmp_path / "run/model_final.pth")
    again = train(configs, "student", tmp_path / "run", resume=True)
    assert_same(before, content(tmp_path / "run/model_final.pth"))
    assert_same(first["figures"], again["figures"])


def test_resume_without_a_checkpoint_starts(configs, tmp_path):
    train(configs, "student", tmp_path / "run", resume=True)
    assert content(tmp_path / "run/model_final.pth")["iteration"] == 7


def test_evaluation_needs_no_teacher(configs, tmp_path, capsys):
    output = tmp_path / "run"
    results = train(configs, "distilled", output)
    (tmp_path / "teacher.pth").unlink()
    (configs / "teacher.yaml").unlink()
    words = ["--eval-only", "--config-file", str(configs / "distilled.yaml")]
    assert main([*words, "OUTPUT_DIR", str(output)]) == 0
    cfg = configure(
        str(configs / "distilled.yaml"), ["MODEL.WEIGHTS", str(output / "student_final.pth")]
    )
    figures = run(cfg, eval_only=True)["figures"]
    assert_same(figures, results["figures"])


def test_multiscale_evaluation(configs, tmp_path):
    output = tmp_path / "run"
    train(configs, "student", output)
    cfg = configure(
        str(configs / "student.yaml"),
        ["OUTPUT_DIR", str(output), "TEST.SCALES", "[0.5,1.0]", "TEST.FLIP", "True"],
    )
    figures = run(cfg, eval_only=True)["figures"]["camvid_val"]
    # By hand: logits of each scale and its mirror image, at full size, and their mean.
    model = build_segmentor_from_config(cfg).eval()
    load_weights(model, output / "student_final.pth")
    resize = partial(F.interpolate, mode="bilinear", align_corners=True)
    matrix = ConfusionMatrix(11)
    for path in sorted((tmp_path / "data/camvid/val").iterdir()):
        pixels = np.array(Image.open(path))[:, :, ::-1].transpose(2, 0, 1)
        image = (torch.from_numpy(pixels.copy()) - model.pixel_mean) / model.pixel_std
        logits = torch.zeros(1, 11, 48, 64)
        for size in ((24, 32), (48, 64)):
            small = resize(image[None], size=size)
            for mirrored in (False, True):
                seen = small.flip(-1) if mirrored else small
                with torch.no_grad():
                    out = model.sem_seg_head.layers(model.backbone(seen))
                out = resize(out, size=(48, 64))
                logits += out.flip(-1) if mirrored else out
        stored = np.array(Image.open(str(path).replace("/val/", "/valannot/")))
        matrix.update(logits[0].argmax(0).numpy(), np.where(stored > 10, 255, stored))
    assert figures["mIoU"] == pytest.approx(100 * matrix.mean_iou(), abs=0.1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(configs, tmp_path, dtype: str):
    amp = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype]
    results = train(configs, "distilled", tmp_path / "run", *amp)
    assert results["iterations"] == 8
    # One step of it is near to one in float32, and not the same.
    first = {}
    for name, words in {"exact": [], "low": amp}.items():
        train(configs, "distilled", tmp_path / name, "SOLVER.MAX_ITER", "1", *words)
        line = json.loads((tmp_path / name / "metrics.json").read_text().splitlines()[0])
        first[name] = {k: v for k, v in line.items() if k.startswith("loss_")}
    assert first["low"] == pytest.approx(first["exact"], rel=0.05)
    assert first["low"] != first["exact"]
    assert bool(content(tmp_path / "run/model_final.pth")["scaler"]) == (dtype == "float16")
    state = content(tmp_path / "run/model_final.pth")["model"]
    assert all(v.dtype in (torch.float32, torch.int64) for v in state.values())
    assert all(torch.isfinite(v).all() for v in state.values())


def test_distillation_modules_alone_are_clipped(configs, tmp_path, monkeypatch):
    clipped = []
    original = torch.nn.utils.clip_grad_norm_

    def record(parameters, norm):
        parameters = list(parameters)
        clipped.append((sum(p.numel() for p in parameters), norm))
        return original(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record)
    train(configs, "distilled", tmp_path / "run", "SOLVER.MAX_ITER", "2")
    modules = content(tmp_path / "run/model_final.pth")["distiller"]
    count = sum(v.numel() for v in modules.values() if isinstance(v, torch.Tensor))
    assert clipped == [(count, 15.0)] * 2


def test_non_finite_loss_stops_with_iteration_and_term(configs, tmp_path, monkeypatch, capsys):
    update = StepRunner.update

    def spoil(self, batch, iteration):
        if iteration == 4:
            with torch.no_grad():
                self.model.distiller.afdcd.projector[0].weight.fill_(float("inf"))
        update(self, batch, iteration)

    monkeypatch.setattr(StepRunner, "update", spoil)
    with pytest.raises(NonFiniteLoss) as error:
        train(configs, "distilled", tmp_path / "run")
    message = str(error.value)
    assert "loss_reconstruction, loss_contrast is not finite at iteration 4" in message
    assert "model_0000002.pth is from before" in message
    last = content(tmp_path / "run/model_0000002.pth")
    assert all(torch.isfinite(v).all() for v in last["model"].values())
