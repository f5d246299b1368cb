"""A file that is no checkpoint: every command and runtime says what it is, in a line."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train_net

from helpers.logs import undone_log_handlers

RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")


class Config:
    """Of some trainer."""


LFS = "is a Git LFS pointer, a few lines of text in place of the file itself. Fetch the file"
UNSAFE = "Config, which could run code"


@pytest.fixture(params=[LFS, UNSAFE])
def wrong(request, tmp_path):
    """A wrong file, and what is to be said of it."""
    path = tmp_path / "wrong.pth"
    if request.param == LFS:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    else:
        torch.save({"model": {"a": torch.zeros(1)}, "config": Config()}, path)
    return str(path), request.param


@pytest.fixture(params=RUNTIMES)
def command(request, configs, tmp_path):
    with undone_log_handlers():
        yield ["--runtime", request.param, "--config-file", str(configs / "distilled.yaml")]


@pytest.mark.parametrize("flags", [[], ["--eval-only"]])
@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.DISTILLER.TEACHER.WEIGHTS"])
def test_training_and_evaluation(command, wrong, tmp_path, capsys, flags: list, key: str):
    if flags and key != "MODEL.WEIGHTS":
        pytest.skip("an evaluation needs no teacher")
    path, message = wrong
    words = [*flags, "--num-gpus", "0", *command, key, path, "OUTPUT_DIR", str(tmp_path / "run")]
    assert train_net(words) == 2
    check(capsys, path, message)
    assert not list((tmp_path / "run").glob("*.pth"))


def test_prediction(command, wrong, tmp_path, capsys):
    path, message = wrong
    words = ["--num-gpus", "0", *command, "--weights", path]
    words += ["--input", str(tmp_path / "data/camvid/val"), "--output", str(tmp_path / "out")]
    assert predict(words) == 2
    check(capsys, path, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.DISTILLER.TEACHER.WEIGHTS"])
def test_the_doctor(command, wrong, tmp_path, capsys, key: str):
    path, message = wrong
    assert doctor([*command, key, path, "OUTPUT_DIR", str(tmp_path / "run")]) == 1
    check(capsys, path, message, start="")


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.DISTILLER.TEACHER.WEIGHTS"])
def test_addresses_in_the_embedded_runtime(configs, tmp_path, capsys, key: str):
    words = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    words += [key, "https://example.org/model.pth", "OUTPUT_DIR", str(tmp_path / "run")]
    assert train_net(words) == 2
    check(capsys, key, "https://example.org/model.pth is an address, not a file: download it first")
    assert doctor(words) == 1
    check(capsys, key, "is an address, not a file: download it first", start="")


def test_harmless_parts_do_not_matter(command, tmp_path, capsys):
    content = torch.load(tmp_path / "teacher.pth", weights_only=True)
    torch.save({**content, "best": np.float64(0.5), "epoch": np.int64(3)}, tmp_path / "teacher.pth")
    words = [*command, "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path / "run")]
    assert train_net(["--num-gpus", "0", *words]) == 0


def check(capsys, path: str, message: str, start: str = "error: ") -> None:
    said = capsys.readouterr()
    text = said.out + said.err
    assert path in text and start in text
    assert message in " ".join(text.split())
    for unwanted in ("Traceback", "weights_only", "\x1b", "add_safe_globals"):
        assert unwanted not in said.err, said.err
