"""The teacher takes part in nothing but its own forward."""

from __future__ import annotations

import json

import pytest
import torch

from afdcd.d2 import run as detectron2_run
from afdcd.d2.config import configure, teacher_config
from afdcd.d2.modeling import build_teacher
from afdcd.d2.trainer import DistillTrainer
from afdcd.distill.folding import fold_norms


def test_teacher_is_untouched_and_nowhere_else(configs, tmp_path):
    cfg = configure(str(configs / "distilled.yaml"), ["OUTPUT_DIR", str(tmp_path / "run")])
    (tmp_path / "run").mkdir()
    trainer = DistillTrainer(cfg)
    teacher = trainer.state.model.teacher
    file = (configs.parent / "teacher.pth").read_bytes()
    trainer.resume_or_load()
    trainer.train()

    # Bit by bit what the file's weights are after folding: training has changed nothing.
    expected = build_teacher(teacher_config(cfg))
    fold_norms(expected)
    assert teacher.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value), name
    assert (configs.parent / "teacher.pth").read_bytes() == file
    assert not teacher.training
    theirs = {id(value) for value in (*teacher.parameters(), *teacher.buffers())}
    model = trainer.state.model
    groups = trainer.optimizer.param_groups
    for values in (
        model.parameters(),
        model.buffers(),
        [value for group in groups for value in group["params"]],
    ):
        assert not theirs & {id(value) for value in values}
    assert not any("teacher" in name for name in model.state_dict())


def test_evaluation_alone_needs_no_teacher(configs, tmp_path):
    run = tmp_path / "run"
    words = ["OUTPUT_DIR", str(run)]
    detectron2_run.launch_run(str(configs / "distilled.yaml"), words)
    (configs.parent / "teacher.pth").unlink()
    (configs / "teacher.yaml").unlink()
    outcome = detectron2_run.run(str(configs / "distilled.yaml"), words, True, False, None)
    assert outcome["weights"] == str(run / "model_final.pth")
    after_training = json.loads((run / "results.json").read_text())["figures"]["camvid_val"]
    for name, value in after_training["sem_seg"].items():
        if value is not None:
            assert outcome["figures"]["camvid_val"]["sem_seg"][name] == pytest.approx(value), name
