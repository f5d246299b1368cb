"""Every network trains at crops of 64 to 320: native CPU kernels have crashed at some of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from helpers import one_step

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
# One of each kind of network that the configs have, narrow and wide, alone and distilled.
STEPS = {
    "quickstart/student.yaml": (64, 160, 192, 256, 320),
    "quickstart/teacher.yaml": (192, 320),
    "quickstart/afdcd.yaml": (64, 192, 256, 320),
    "camvid_small/student.yaml": (64, 160, 184, 256, 320),
    "camvid_small/afdcd.yaml": (184, 320),
    "camvid/deeplabv3_mbv2.yaml": (64, 192, 320),
    "camvid/deeplabv3_r18.yaml": (64, 192, 320),
    "camvid/pspnet_r18.yaml": (64, 192, 320),
    "camvid/deeplabv3_r101.yaml": (64, 192),
    "camvid/segformer_b0.yaml": (64, 72, 192, 320),
    "camvid/segformer_b2.yaml": (64, 192),
    "camvid/deeplabv3_mbv3.yaml": (64, 192, 320),
    "camvid/lraspp_mbv3.yaml": (64, 192, 320),
    "camvid/deeplabv3_effnet_lite0.yaml": (64, 192, 320),
    "camvid/deeplabv3_effnet_lite2.yaml": (64, 192),
    "facade_few/student.yaml": (64, 128, 192, 320),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", STEPS)
def test_a_step(config: str):
    words = [str(crop) for crop in STEPS[config]]
    done = subprocess.run(
        [sys.executable, one_step.__file__, str(CONFIGS / config), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(words)


def test_every_network_is_among_them():
    """By the files of configs/networks that they are built on, and the small networks' own."""
    found: set[Path] = set()
    for config in STEPS:
        bases = yaml.safe_load((CONFIGS / config).read_text())["_BASE_"]
        for base in [bases] if isinstance(bases, str) else bases:
            found.add((CONFIGS / config).parent.joinpath(base).resolve())
    assert set((CONFIGS / "networks").glob("*.yaml")) <= found
    for folder in ("quickstart", "camvid_small"):
        assert f"{folder}/student.yaml" in STEPS


@pytest.mark.parametrize(
    "config",
    [
        *(f"quickstart/{loss}.yaml" for loss in ("afdcd", "cwd", "dist", "feature_kd")),
        "camvid/afdcd_deeplabv3_mbv2.yaml",
        "camvid/segformer_b0.yaml",
    ],
)
def test_nothing_runs_in_channels_last_on_a_cpu(config: str):
    """Where PyTorch's BatchNorm loses digits, and narrow strided convolutions the process."""
    model = one_step.build(str(CONFIGS / config), 72)
    with one_step.ChannelsLast() as watch:
        one_step.take_step(model, 72)
    assert watch.seen >= 50
    assert watch.found == []


def test_the_watch_sees_channels_last():
    layer = nn.Conv2d(32, 32, 3)  # not narrow, and forward alone: nothing that could crash
    maps = torch.rand(2, 32, 8, 8)
    for memory_format, seen in ((torch.contiguous_format, 0), (torch.channels_last, 1)):
        with one_step.ChannelsLast() as watch, torch.no_grad():
            layer(maps.contiguous(memory_format=memory_format))
        assert watch.seen == 1 and len(watch.found) == seen
