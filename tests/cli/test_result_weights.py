"""Which checkpoint predict.py and --eval-only load: the command line's, the run's, the config's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train_net
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config

from helpers.logs import undone_log_handlers

RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")


@pytest.fixture(params=RUNTIMES)
def case(request, configs, tmp_path, capsys, caplog):
    """A config that starts from a backbone, as the benchmarks' do, before its training."""
    with undone_log_handlers():
        yield Case(request.param, configs / "student.yaml", tmp_path, capsys, caplog)


class Case:
    def __init__(self, runtime: str, config: Path, folder: Path, capsys, caplog) -> None:
        self.folder, self.run, self.capsys, self.caplog = folder, folder / "run", capsys, caplog
        self.model = build_segmentor_from_config(configure(str(config), []))
        content = yaml.safe_load(config.read_text())
        content["OUTPUT_DIR"] = str(self.run)
        content["MODEL"]["WEIGHTS"] = str(folder / "backbone.pth")
        config.write_text(yaml.safe_dump(content))
        backbone = {n: v for n, v in self.model.state_dict().items() if n.startswith("backbone.")}
        torch.save({"model": backbone}, folder / "backbone.pth")
        self.run.mkdir()
        self.words = ["--runtime", runtime, "--num-gpus", "0", "--config-file", str(config)]

    def save(self, path: Path, label: int) -> str:
        """A whole model that says one class everywhere."""
        with torch.no_grad():
            self.model.sem_seg_head.predictor.bias.copy_(1e6 * torch.eye(11)[label])
        torch.save({"model": self.model.state_dict()}, path)
        return str(path)

    def predicted(self, *words: str) -> int:
        """The class that predict.py gives."""
        image = str(self.folder / "data/camvid/val/00000.png")
        command = [*self.words, "--input", image, "--output", str(self.folder / "out"), *words]
        with self.caplog.at_level("INFO"):
            assert predict(command) == 0
        labels = np.array(Image.open(self.folder / "out/00000_labels.png"))
        assert labels.min() == labels.max()
        return int(labels.max())

    def evaluated(self, *words: str) -> str:
        """The checkpoint that --eval-only has scored."""
        with self.caplog.at_level("INFO"):
            assert train_net(["--eval-only", *self.words, *words]) == 0
        return json.loads((self.run / "evaluation.json").read_text())["weights"]

    def refused(self, *words: str) -> str:
        """What predict.py and --eval-only say, which is the same."""
        image = str(self.folder / "data/camvid/val/00000.png")
        flags = ["--input", image, "--output", str(self.folder / "out")]
        messages = set()
        for command in (
            lambda: predict([*self.words, *flags, *words]),
            lambda: train_net(["--eval-only", *self.words, *words]),
        ):
            assert command() == 2
            said = self.capsys.readouterr()
            assert "Traceback" not in said.out + said.err
            messages.add(said.err[said.err.index("error: ") :])
        (message,) = messages
        return message


def test_the_runs_result_comes_before_the_config_files_backbone(case):
    case.save(case.run / "model_best.pth", 3)
    assert case.predicted() == 3
    case.save(case.run / "model_final.pth", 4)
    assert case.predicted() == 4
    assert case.evaluated() == str(case.run / "model_final.pth")
    assert f"Weights: {case.run / 'model_final.pth'} (the run's own result)" in case.caplog.text


def test_the_runs_result_comes_before_a_whole_model_that_it_started_from(case):
    case.save(case.folder / "backbone.pth", 2)
    assert case.predicted() == 2
    assert "MODEL.WEIGHTS of the config file" in case.caplog.text
    case.save(case.run / "model_final.pth", 4)
    assert case.predicted() == 4
    assert case.evaluated() == str(case.run / "model_final.pth")


def test_the_command_line_comes_first(case):
    case.save(case.run / "model_final.pth", 4)
    other = case.save(case.folder / "other.pth", 5)
    assert case.predicted("--weights", other) == 5
    assert case.predicted("MODEL.WEIGHTS", other) == 5
    assert "(MODEL.WEIGHTS on the command line)" in case.caplog.text
    assert case.evaluated("MODEL.WEIGHTS", other) == other
    another = case.save(case.folder / "another.pth", 6)
    assert case.predicted("--weights", another, "MODEL.WEIGHTS", other) == 6


def test_before_training_a_backbone_is_called_one(case):
    message = case.refused()
    assert f"{case.folder / 'backbone.pth'} holds a backbone alone" in message
    assert "Train first, or name a trained model" in message and "missing" not in message
    assert "MODEL.WEIGHTS is empty" in case.refused("MODEL.WEIGHTS", "")
    message = case.refused("MODEL.WEIGHTS", str(case.folder / "none.pth"))
    assert "no checkpoint at" in message and "on the command line" in message
    (case.folder / "backbone.pth").unlink()
    message = case.refused()
    assert "no checkpoint at" in message and "holds no model_final.pth" in message


def test_an_address(case):
    message = case.refused("MODEL.WEIGHTS", "http://127.0.0.1:9/model.pth")
    assert "http://127.0.0.1:9/model.pth" in message and "download it" in message
