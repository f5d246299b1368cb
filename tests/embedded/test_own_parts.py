"""A backbone of the user's own in whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train
from afdcd.embedded.runtime import configure
from afdcd.models import BACKBONES, build_segmentor_from_config

from helpers.own_network import network_code, processes_that_ran, write_own_network

SCRIPT = """
import multiprocessing
import sys
from afdcd.cli.train_net import main

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
"""


def flags(config: Path) -> list[str]:
    return ["--runtime", "embedded", "--config-file", str(config)]


def state(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "student_final.pth", weights_only=True)["model"]


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_trains_resumes_predicts_and_is_diagnosed(configs, tmp_path, capsys, monkeypatch, name):
    own = write_own_network(configs, f"convs_embedded_{name}")
    monkeypatch.chdir(own)
    config, output = own / f"{name}.yaml", tmp_path / "run"
    # The files are found wherever the command is run.
    assert train([*flags(Path(config.name)), "OUTPUT_DIR", str(output)]) == 0
    assert processes_that_ran(own) == 1  # loader processes were forked
    assert state(output)["backbone.res5.3.weight"].shape == (32, 16, 3, 3)
    monkeypatch.chdir(tmp_path)
    # The copy of the config is as good as the config.
    copy = output / "config.yaml"
    files = ["my_network.py"] if name == "student" else ["my_network.py", "my_loss.py"]
    assert yaml.safe_load(copy.read_text())["IMPORTS"] == [str(own / file) for file in files]
    assert train([*flags(copy), "--resume"]) == 0
    capsys.readouterr()
    image = str(tmp_path / "data/camvid/val/00000.png")
    words = ["--input", image, "--output", str(tmp_path / "out"), "OUTPUT_DIR", str(output)]
    assert predict([*flags(config), *words]) == 0
    assert Image.open(tmp_path / "out/00000_labels.png").size == (64, 48)
    capsys.readouterr()
    doctor([*flags(config), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {found["kind"] for found in report["fix"]} <= {"incomplete", "loss-weight", "teacher"}
    assert report["facts"]["time"]["s/step"] > 0
    assert report["facts"]["parameters of the student, M"] > 0
    assert processes_that_ran(own) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loader_processes_that_start_anew_import_it_too(configs, tmp_path, method: str):
    own = write_own_network(configs, "convs_anew")
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [*flags(own / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "anew")]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), method, *words, "SOLVER.MAX_ITER", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # This one, two that load for training and two for the evaluation.
    assert processes_that_ran(own) == 5
    words = [*flags(own / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "forked")]
    own.joinpath("my_network.py").write_text(network_code("convs_anew"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), "fork", *words, "SOLVER.MAX_ITER", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    forked, anew = state(tmp_path / "forked"), state(tmp_path / "anew")
    assert all(torch.equal(value, anew[key]) for key, value in forked.items())


def test_a_misspelt_backbone(configs, tmp_path, capsys):
    own = write_own_network(configs, "convs_misspelt")
    words = ["OUTPUT_DIR", str(tmp_path / "run"), "MODEL.BACKBONE.NAME", "convs_mispelt"]
    assert train([*flags(own / "student.yaml"), *words]) == 2
    said = capsys.readouterr().err
    assert "MODEL.BACKBONE.NAME convs_mispelt" in said and "convs_misspelt" in said
    cfg = configure(str(own / "student.yaml"), words)
    with pytest.raises(ValueError, match=r"MODEL\.BACKBONE\.NAME: .*did you mean convs_misspelt"):
        build_segmentor_from_config(cfg)


def test_maps_of_other_names_than_were_said(configs):
    own = write_own_network(configs, "convs_of_other_names")
    model = build_segmentor_from_config(configure(str(own / "student.yaml"), []))
    model.backbone.feature_maps = lambda x: {"res4": x}
    with pytest.raises(ValueError, match="returns res4, but output_shape names res5"):
        model.backbone(torch.zeros(1, 3, 8, 8))


def test_images_are_padded_to_what_a_backbone_divides(configs):
    own = write_own_network(configs, "convs_that_divide")
    model = build_segmentor_from_config(configure(str(own / "student.yaml"), [])).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(3, 33, 40) * 255
    plain = model([{"image": image}])[0]["sem_seg"]
    model.backbone.size_divisibility = 32
    padded = model([{"image": image, "height": 33, "width": 40}])[0]["sem_seg"]
    assert [tuple(x.shape) for x in seen] == [(1, 3, 33, 40), (1, 3, 64, 64)]
    torch.testing.assert_close(seen[1][:, :, :33, :40], seen[0])
    assert seen[1][:, :, 33:].abs().max() == 0 == seen[1][:, :, :, 40:].abs().max()
    assert plain.shape == padded.shape == (11, 33, 40)
    model.train()
    labels = torch.zeros(33, 40, dtype=torch.int64)
    # The padding is labelled as ignored.
    targets = []
    model.sem_seg_head.register_forward_pre_hook(lambda _, inputs: targets.append(inputs[1]))
    assert model([{"image": image, "sem_seg": labels}] * 2)["loss_sem_seg"].isfinite()
    assert targets[0].shape == (2, 64, 64) and (targets[0] != 255).sum() == 2 * 33 * 40


def test_the_names_that_configs_use():
    names = BACKBONES.names()
    assert {"build_dilated_resnet_backbone", "build_dilated_mobilenetv2_backbone"} <= set(names)
