"""The examples of docs/extending.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afdcd.losses.registry import LOSSES, LossContext
from afdcd.utils.user_modules import file_module_name, import_user_module

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/extending.md").read_text()
SMALL = {
    "SOLVER.MAX_ITER": "2",
    "SOLVER.IMS_PER_BATCH": "2",
    "DATALOADER.NUM_WORKERS": "2",
    "INPUT.SCALE_CROP.SIZE": "[64,64]",
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def files() -> dict[str, str]:
    named = {}
    for text in [*blocks("python"), *blocks("yaml")]:
        if match := re.match(r"# file: (\S+)\n", text):
            named[match[1]] = text
    return named


def commands() -> list[list[str]]:
    return [shlex.split(line) for line in "".join(blocks("bash")).splitlines()]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    words = [word for pair in SMALL.items() for word in pair]
    runtime = [] if "quickstart" in command[1] else ["--runtime", "embedded"]
    return subprocess.run(
        [sys.executable, *command[1:4], *runtime, *command[4:], *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "own").mkdir()
    for name, text in files().items():
        (folder / name).write_text(text)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(folder / "images/a.png")
    return folder


def test_examples_are_short():
    assert {name for name in files() if name.endswith(".py")} == {
        "own/my_loss.py",
        "own/my_network.py",
        "own/my_task.py",
    }
    for name, text in files().items():
        assert len(text.splitlines()) <= 50, name


@pytest.mark.slow
def test_the_worked_examples(place):
    """A loss beside others, and a network alone and distilled."""
    tools = []
    for command in commands():
        done = run(command, place)
        said = done.stdout + done.stderr
        tools.append(Path(command[1]).stem)
        # The teacher is hardly trained, which the doctor sees.
        expected = (0, 1) if tools[-1] == "doctor" else (0,)
        assert done.returncode in expected and "Traceback" not in said, said
        if tools[-1] == "doctor":
            assert "backbone.res5" in said, said
    task = ["train_net", "predict"]
    assert tools == ["train_net"] * 3 + ["doctor", "train_net", "predict"] + task
    for name in ("student", "distilled"):
        state = torch.load(place / f"output/own/{name}/student_final.pth", weights_only=True)
        assert state["model"]["backbone.res5.3.weight"].shape == (32, 16, 3, 3)
    lines = (place / "output/own/with_means/metrics.json").read_text().splitlines()
    losses = next(line for line in map(json.loads, lines) if "total_loss" in line)
    assert "loss_contrast" in losses
    # Twice the scale is four times the value, which goes in with a fifth of the weight.
    plain, twice = (losses[f"loss_channel_means_{label}"] for label in ("plain", "twice"))
    assert plain > 0 and twice == pytest.approx(plain * 4 / 5, rel=1e-4)
    results = json.loads((place / "output/own/columns/results.json").read_text())
    (figures,) = results["figures"].values()
    best = {"metric": "error", "value": figures["error"], "iteration": 1}
    assert results["best"] == best and 0 < figures["error"] < 2
    assert np.load(place / "columns/a.npy").shape == (50, 70)
    assert Image.open(place / "predictions/a_labels.png").size == (70, 50)


def test_a_loss_of_ones_own(place):
    import_user_module(file_module_name((place / "own/my_loss.py").resolve()))
    loss = LOSSES.get("channel_means")(scale=2.0)
    student = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])  # means 2 and 0
    teacher = torch.tensor([[[[1.0, 1.0]], [[2.0, 4.0]]]])  # means 1 and 3
    terms = loss(student, teacher, context=LossContext())
    # Twice the means differ by 2 and 6: (4 + 36) / 2.
    assert {name: value.item() for name, value in terms.items()} == {"channel_means": 20.0}
    assert terms.keys() == loss.TERMS.keys()
