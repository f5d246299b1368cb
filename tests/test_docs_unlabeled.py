"""The commands of docs/unlabeled.md, from folders of images to students."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.documents import ROOT, blocks

pytestmark = pytest.mark.slow
BLOCKS = blocks("docs/unlabeled.md")
COLORS = np.array([(60, 160, 60), (60, 60, 160), (160, 60, 60)], dtype=np.uint8)
NETWORK = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.DEPTH": "18",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "8",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": "8",
}
TRAINING = {
    "INPUT.SCALE_CROP.SIZE": "[32,32]",
    "SOLVER.MAX_ITER": "3",
    "SOLVER.IMS_PER_BATCH": "2",
    "DATALOADER.NUM_WORKERS": "0",
}


def commands() -> list[list[str]]:
    text = "".join(block.text for block in BLOCKS if block.language == "bash")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def tiny(command: list[str]) -> list[str]:
    """The command with sizes for a test: no change of what it does."""
    stem = Path(command[command.index("--config-file") + 1]).stem
    settings = NETWORK | TRAINING
    if stem not in ("teacher", "student", "warm_start"):
        words = [word for pair in NETWORK.items() for word in pair]
        settings |= {"MODEL.DISTILLER.TEACHER.OPTS": repr(words)}
    return [*command, *(word for pair in settings.items() for word in pair)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("photos", "masks", "more_photos"):
        (folder / name).mkdir()
    for number in range(40):
        rng = np.random.default_rng(number)
        labels = np.kron(rng.integers(0, 3, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
        kind = "photos" if number < 10 else "more_photos"
        Image.fromarray(COLORS[labels]).save(folder / kind / f"{number:02d}.jpg")
        if kind == "photos":
            Image.fromarray(labels).save(folder / f"masks/{number:02d}.png")
    for block in BLOCKS:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    return folder


def test_the_worked_example(place):
    names = []
    for command in commands():
        names.append(Path(command[1]).stem)
        done = subprocess.run(
            [sys.executable, *tiny(command)[1:]],
            cwd=place,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        # The teacher is hardly trained, which the doctor sees.
        expected = (0, 1) if names[-1] == "doctor" else (0,)
        assert done.returncode in expected and "Traceback" not in said, said
        if names[-1] == "doctor":
            assert "more_photos" in said and "confidence" in said
    train = "train_net"
    assert names == [train, train, "doctor", train, "predict", train, train, train]
    for run in ("student", "distilled", "sure", "taught", "warm_start"):
        assert (place / f"output/few/{run}/student_final.pth").is_file()
    lines = [
        json.loads(line)
        for run in ("sure", "taught")
        for line in (place / f"output/few/{run}/metrics.json").read_text().splitlines()
    ]
    assert any("confident_pixels" in line for line in lines)
    assert any(line.get("loss_sem_seg") == 0 for line in lines)
    assert len(list((place / "predictions").rglob("*_overlay.png"))) == 30
