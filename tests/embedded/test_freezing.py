"""Stages that aren't trained: ``MODEL.BACKBONE.FREEZE_AT``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afdcd.cli.train_net import main as train
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor, build_segmentor_from_config

from helpers.segformer_runs import write_segformer_runs

FROZEN = ("backbone.stem.", "backbone.res2.")


def weights_of(config: Path) -> dict[str, torch.Tensor]:
    """Of a new network; its running statistics are no longer those that training begins with."""
    torch.manual_seed(1)
    model = build_segmentor_from_config(configure(str(config), []))
    model([{"image": torch.rand(3, 40, 40), "sem_seg": torch.zeros(40, 40).long()}] * 2)
    return model.state_dict()


@pytest.mark.parametrize("name", ["student", "distilled", "segformer"])
def test_frozen_parts_stay_as_loaded(configs, tmp_path, name: str):
    if name == "segformer":
        write_segformer_runs(configs)
    before = weights_of(configs / ("segformer.yaml" if name == "segformer" else "student.yaml"))
    torch.save({"model": before}, tmp_path / "start.pth")
    words = ["--runtime", "embedded", "--config-file", str(configs / f"{name}.yaml")]
    words += ["MODEL.WEIGHTS", str(tmp_path / "start.pth"), "MODEL.BACKBONE.FREEZE_AT", "2"]
    words += ["SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    assert train(words) == 0
    after = torch.load(tmp_path / "run/student_final.pth", weights_only=True)["model"]
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert not [key for key in changed if key.startswith(FROZEN)]
    assert {key for key in after if key.startswith("backbone.res5.")} & changed
    assert [key for key in after if key.startswith(FROZEN)]


def test_training_mode_does_not_reach_frozen_parts():
    model = build_segmentor("deeplabv3", "mobilenetv2", 3, width_mult=0.25)
    model.backbone.freeze(2)
    model.eval().train()
    modes = {name: part.training for name, part in model.backbone.named_children()}
    assert modes == {"stem": False, "res2": False, "res3": True, "res4": True, "res5": True}
    model.backbone.freeze(0)
    assert all(part.training for part in model.modules())
    with pytest.raises(ValueError, match=r"FREEZE_AT must be from 0 to 5; got 6"):
        model.backbone.freeze(6)


def test_freezing_random_weights_is_refused(configs, tmp_path, capsys):
    words = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    words += ["MODEL.BACKBONE.FREEZE_AT", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    assert train(words) == 2
    assert "would stay random" in capsys.readouterr().err
