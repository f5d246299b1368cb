"""Runs in both runtimes, and comparisons of what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from afdcd import embedded
from afdcd.d2 import run as detectron2_run
from afdcd.embedded.runtime import configure


def train_embedded(config: Path, output: Path, *overrides: str, resume: bool = False) -> dict:
    cfg = configure(str(config), [*overrides, "OUTPUT_DIR", str(output)])
    return embedded.run(cfg, resume=resume)


def train_detectron2(
    config: Path, output: Path, *overrides: str, resume: bool = False, **flags: Any
) -> dict:
    words = [*overrides, "OUTPUT_DIR", str(output)]
    detectron2_run.launch_run(str(config), words, resume=resume, **flags)
    return json.loads((output / "results.json").read_text())


RUNTIMES = {"embedded": train_embedded, "detectron2": train_detectron2}


def checkpoint(output: Path, name: str = "model_final.pth") -> dict[str, Any]:
    return torch.load(output / name, weights_only=True)


def assert_same_tensors(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key


def losses(output: Path) -> list[dict[str, float]]:
    """The losses of each line of a run's metrics.json that has them."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k.startswith("loss_")}
        for line in lines
        if "total_loss" in line
    ]
