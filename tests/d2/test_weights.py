"""Weights of Detectron2's own models: read as this package reads its own, never run."""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch

pytest.importorskip("detectron2")

from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.d2.weights import load_model_weights
from afdcd.models.weights import CheckpointError

from helpers.shapes_runs import tiny

FPN = tiny("panoptic_fpn_student")


@pytest.fixture(scope="module")
def model():
    return Detectron2Runtime.configure(str(FPN), ["MODEL.DEVICE", "cpu"]).build()


class Attack:
    def __reduce__(self):
        return print, ("this must not be called",)


@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "a.pyth"])
def test_files_cannot_run_code(model, tmp_path, name: str, capsys):
    (tmp_path / name).write_bytes(pickle.dumps({"model": Attack(), "__author__": "x"}))
    with pytest.raises(CheckpointError, match=r"holds an object of builtins\.print"):
        load_model_weights(model, str(tmp_path / name), complete=False)
    assert "must not be called" not in capsys.readouterr().out


def test_every_form_is_read(model, tmp_path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(
        {
            "state_dict": {f"module._orig_mod.{n}": v for n, v in state.items()},
            "args": argparse.Namespace(lr=1),
            "best": np.float64(0.5),
        },
        tmp_path / "a.pth",
    )
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    arrays = {n: v.numpy() for n, v in state.items()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    for path in sorted(tmp_path.iterdir()):
        with torch.no_grad():
            model.sem_seg_head.predictor.bias.fill_(7)
        load_model_weights(model, str(path), complete=True)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, state[name], msg=f"{path.name}: {name}")


def test_a_backbone_is_no_trained_model(model, tmp_path):
    state = {n: v for n, v in model.state_dict().items() if n.startswith("backbone.")}
    torch.save({"model": state}, tmp_path / "a.pth")
    load_model_weights(model, str(tmp_path / "a.pth"), complete=False)
    with pytest.raises(CheckpointError, match="holds a backbone alone"):
        load_model_weights(model, str(tmp_path / "a.pth"), complete=True)


def test_an_address_that_cannot_be_fetched(model):
    with pytest.raises(CheckpointError, match=r"can't be fetched \(\w+\): download it by other"):
        load_model_weights(model, "http://127.0.0.1:9/a.pth", complete=False)


def test_the_commands_say_it_in_a_line(configs, tmp_path, capsys):
    path = tmp_path / "a.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    words = ["--runtime", "detectron2", "--config-file", str(configs / "student.yaml")]
    words += ["MODEL.WEIGHTS", str(path), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert f"error: {path} can't be read as a checkpoint: it is a Git LFS pointer" in said.err
    assert "Traceback" not in said.err + said.out
    assert doctor(words) == 1
    assert "is a Git LFS pointer" in capsys.readouterr().out
