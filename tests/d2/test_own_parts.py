"""Parts of the user's own in Detectron2's runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling import Backbone as Detectron2Backbone

from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.config import ConfigError
from afdcd.d2.config import configure
from afdcd.d2.modeling import build_student
from afdcd.models import BACKBONES, HEADS, ResNet

from helpers.d2_runs import (
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
    train_embedded,
)
from helpers.own_network import processes_that_ran, write_own_network

ROOT = Path(__file__).parents[2]
THEIRS = """
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, Backbone, SemanticSegmentor
from torch import nn

@BACKBONE_REGISTRY.register()
class PlainPatches(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.res5 = nn.Conv2d(input_shape.channels, cfg.MODEL.PATCHES.WIDTH, 8, stride=8)

    def output_shape(self):
        return {"res5": ShapeSpec(channels=self.res5.out_channels, stride=8)}

    def forward(self, x):
        return {"res5": self.res5(x)}

@META_ARCH_REGISTRY.register()
class Doubled(SemanticSegmentor):
    def forward(self, batched_inputs):
        found = super().forward(batched_inputs)
        if not self.training:
            return found
        return {name.replace("loss_", "loss_doubled_"): 2 * x for name, x in found.items()}

def add_config(cfg):
    cfg.MODEL.PATCHES = type(cfg)({"WIDTH": 8})
"""
SCRIPT = """
import multiprocessing
import sys
from afdcd.d2.run import launch_run

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    words = ["OUTPUT_DIR", sys.argv[3], "SOLVER.MAX_ITER", "2"]
    launch_run(sys.argv[2], words, num_gpus=0)
"""


def test_every_part_is_known_by_the_same_name():
    for ours, theirs in ((BACKBONES, BACKBONE_REGISTRY), (HEADS, SEM_SEG_HEADS_REGISTRY)):
        assert set(ours.names()) <= {name for name, _ in theirs}
    assert isinstance(ResNet(18), Detectron2Backbone)


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_a_backbone_of_ones_own_trains_as_in_the_embedded_runtime(configs, tmp_path, name: str):
    own = write_own_network(configs, f"convs_detectron2_{name}")
    a = train_embedded(own / f"{name}.yaml", tmp_path / "a")
    b = train_detectron2(own / f"{name}.yaml", tmp_path / "b")
    assert_same_tensors(checkpoint(tmp_path / "a")["model"], checkpoint(tmp_path / "b")["model"])
    assert losses(tmp_path / "a")[0].keys() == losses(tmp_path / "b")[0].keys()
    ours, theirs = a["figures"]["camvid_val"], b["figures"]["camvid_val"]["sem_seg"]
    assert theirs["mIoU"] == pytest.approx(ours["mIoU"], abs=1e-6)
    assert processes_that_ran(own) == 1


def test_in_two_processes_with_loader_processes(configs, tmp_path):
    own = write_own_network(configs, "convs_two_processes")
    config, output, words = own / "distilled.yaml", tmp_path / "run", ["SOLVER.IMS_PER_BATCH", "4"]
    train_detectron2(config, output, *words, num_gpus=2)
    # This one, which checks, and the two, each with two that load for training and for evaluation.
    assert processes_that_ran(own) == 1 + 2 * (1 + 2 + 2)
    (figures,) = losses(output)
    assert {"loss_sem_seg", "loss_contrast", "loss_channel_means"} <= figures.keys()
    # They load what each of the two would load itself.
    words += ["DATALOADER.NUM_WORKERS", "0"]
    train_detectron2(config, tmp_path / "alone", *words, num_gpus=2)
    before = checkpoint(tmp_path / "alone")["model"]
    for key, value in checkpoint(output)["model"].items():
        torch.testing.assert_close(value, before[key], rtol=1e-5, atol=1e-7)


def test_predict_and_doctor(configs, tmp_path, capsys):
    own = write_own_network(configs, "convs_commands")
    torch.manual_seed(0)
    model = build_student(configure(str(own / "student.yaml"), []))
    torch.save({"model": model.state_dict()}, tmp_path / "own.pth")
    flags = ["--runtime", "detectron2", "--config-file", str(own / "distilled.yaml")]
    image = str(tmp_path / "data/camvid/val/00000.png")
    words = ["--weights", str(tmp_path / "own.pth"), "--num-gpus", "0", "--input", image]
    assert predict([*flags, *words, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/00000_labels.png").is_file()
    doctor(flags)
    assert "backbone.res5" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loader_processes_that_start_anew(configs, tmp_path, method: str):
    own = write_own_network(configs, f"convs_anew_{method}")
    (tmp_path / "script.py").write_text(SCRIPT)
    config, output = str(own / "student.yaml"), tmp_path / "anew"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), method, config, str(output)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # This one, two that load for training and two for the evaluation.
    assert processes_that_ran(own) == 5
    train_detectron2(own / "student.yaml", tmp_path / "forked", "SOLVER.MAX_ITER", "2")
    assert_same_tensors(checkpoint(output)["model"], checkpoint(tmp_path / "forked")["model"])


def test_detectron2s_own_registries(configs, tmp_path):
    own = configs.parent / "theirs"
    own.mkdir()
    (own / "parts.py").write_text(THEIRS)
    content = {
        "_BASE_": "../configs/student.yaml",
        "IMPORTS": ["parts.py"],
        "MODEL": {
            "META_ARCHITECTURE": "Doubled",
            "BACKBONE": {"NAME": "PlainPatches"},
            "PATCHES": {"WIDTH": 4},
            "SEM_SEG_HEAD": {"AUX_WEIGHT": 0.0},
        },
        "SOLVER": {"MAX_ITER": 2},
    }
    (own / "student.yaml").write_text(yaml.safe_dump(content))
    train_detectron2(own / "student.yaml", tmp_path / "run")
    assert checkpoint(tmp_path / "run")["model"]["backbone.res5.weight"].shape == (4, 3, 8, 8)
    assert all(line.keys() == {"loss_doubled_sem_seg"} for line in losses(tmp_path / "run"))
    # Distilled, its student is of that kind too.
    content["_BASE_"] = "../configs/distilled.yaml"
    content["MODEL"] |= {"META_ARCHITECTURE": "Distiller", "DISTILLER": {"STUDENT": "Doubled"}}
    (own / "distilled.yaml").write_text(yaml.safe_dump(content))
    train_detectron2(own / "distilled.yaml", tmp_path / "distilled")
    assert "loss_doubled_sem_seg" in losses(tmp_path / "distilled")[0]


def test_a_name_that_detectron2_has(configs):
    own = write_own_network(configs, "build_resnet_backbone")
    with pytest.raises(ConfigError, match=r"my_network\.py, line \d+: .*'build_resnet_backbone'"):
        configure(str(own / "student.yaml"), [])
    assert "build_resnet_backbone" not in BACKBONES


def test_errors_of_other_processes_are_said_here(configs: Path, tmp_path):
    """A file that can't be imported a second time."""
    own = write_own_network(configs, "convs_failing")
    path = own / "my_network.py"
    path.write_text(path.read_text() + "assert len(glob.glob(__file__ + '.*.ran')) < 2, 'again'\n")
    path.write_text(path.read_text().replace("from torch", "import glob\nfrom torch", 1))
    with pytest.raises(ConfigError, match=r"my_network\.py, line \d+: AssertionError: again"):
        train_detectron2(
            own / "student.yaml", tmp_path / "run", "SOLVER.IMS_PER_BATCH", "4", num_gpus=2
        )
