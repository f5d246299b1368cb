"""The commands of docs/datasets.md, from a folder of images to a distilled student."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afdcd.data import load_dataset, read_labels

from helpers import domains
from helpers.documents import ROOT, blocks

pytestmark = pytest.mark.slow
BLOCKS = blocks("docs/datasets.md")
TINY = {
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
    "MODEL.DISTILLER.LOSSES.afdcd.GROUPS": "8",
    "MODEL.DISTILLER.LOSSES.afdcd.POOL": "0",
}


def commands() -> list[list[str]]:
    text = "".join(block.text for block in BLOCKS if block.language == "bash")
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def tiny(command: list[str]) -> list[str]:
    """The command with sizes for a test: no change of what it does."""
    if "register_dataset" in command[1]:
        return command
    words = [word for pair in (TINY | TRAINING).items() for word in pair]
    teacher = [word for pair in TINY.items() for word in pair]
    return [*command, *words, "MODEL.DISTILLER.TEACHER.OPTS", repr(teacher)]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *tiny(command)[1:]],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    domains.write_aerial(folder / "aerial")
    domains.write_medical(folder / "medical")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.text)
    return folder


def test_the_worked_example(place):
    tools = []
    for command in commands():
        tools.append(Path(command[1]).stem)
        done = run(command, place)
        said = done.stdout + done.stderr
        # The teacher is hardly trained, which the doctor sees.
        expected = (0, 1) if tools[-1] == "doctor" else (0,)
        assert done.returncode in expected and "Traceback" not in said, said
        if tools[-1] == "register_dataset":
            assert "OK. In a config" in said
    assert tools == ["register_dataset"] * 2 + ["train_net", "doctor", "train_net", "predict"]
    assert (place / "output/aerial/distilled/student_final.pth").is_file()
    assert len(list((place / "predictions").rglob("*_overlay.png"))) == 10


def test_the_slices_go_the_same_way(place):
    if not (place / "medical/slices.yaml").is_file():
        assert run(commands()[1], place).returncode == 0
    for name in ("base", "teacher", "student", "distilled"):
        content = (place / f"aerial/{name}.yaml").read_text()
        content = content.replace("tiles.yaml", "slices.yaml").replace("/aerial/", "/medical/")
        (place / f"medical/{name}.yaml").write_text(content)
    for name in ("teacher", "distilled"):
        command = ["python", "tools/train_net.py", "--config-file", f"medical/{name}.yaml"]
        done = run(command, place)
        assert done.returncode == 0, done.stderr
    assert (place / "output/medical/distilled/student_final.pth").is_file()


def test_the_described_example_reads_the_same_labels(place):
    dataset = load_dataset(f"{place}/aerial/described.yaml:val")
    assert len(dataset.records) == 2
    for record in dataset.records:
        path = record["sem_seg_file_name"]
        stored = np.array(Image.open(path))
        labels = read_labels(path, dataset.label_map)
        for label, color in enumerate(domains.TILE_COLORS.values()):
            np.testing.assert_array_equal(labels == label, (stored == color).all(-1))
