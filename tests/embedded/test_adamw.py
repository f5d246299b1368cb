"""AdamW in whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from afdcd.cli.train_net import main as train

ADAMW = {"OPTIMIZER": "ADAMW", "BASE_LR": 0.001, "BACKBONE_MULTIPLIER": 0.5, "MAX_ITER": 6}


@pytest.fixture
def flags(configs) -> list[str]:
    config = configs / "adamw.yaml"
    config.write_text(yaml.safe_dump({"_BASE_": "distilled.yaml", "SOLVER": ADAMW}))
    return ["--runtime", "embedded", "--config-file", str(config)]


def student_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "student_final.pth", weights_only=True)["model"]


def test_resumes_exactly(flags, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        assert train([*flags, "OUTPUT_DIR", str(folder)]) == 0
    for path in parts.glob("*.pth"):
        if path.name != "model_0000002.pth":
            path.unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    assert train([*flags, "--resume", "OUTPUT_DIR", str(parts)]) == 0
    a, b = student_of(whole), student_of(parts)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_another_optimizers_state_is_refused(flags, tmp_path, capsys):
    output = ["OUTPUT_DIR", str(tmp_path / "run")]
    assert train([*flags, *output, "SOLVER.MAX_ITER", "4"]) == 0
    assert train([*flags, "--resume", *output, "SOLVER.OPTIMIZER", "SGD"]) == 2
    assert "is SOLVER.OPTIMIZER another?" in capsys.readouterr().err
