"""The example of docs/teachers.md."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.documents import ALL, ROOT

BLOCKS = [block for block in ALL if block.document == "docs/teachers.md"]
SMALL = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
SMALL += ["INPUT.SCALE_CROP.SIZE", "[64,64]"]


@pytest.mark.slow
def test_the_example(tmp_path):
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).parent.mkdir(exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    commands = [
        shlex.split(line) for b in BLOCKS if b.language == "bash" for line in b.text.splitlines()
    ]
    assert len(commands) == 4
    outputs = []
    for command in commands:
        tool = Path(command[1]).parent.name == "tools"
        words = ["--runtime", "embedded", *command[2:], *SMALL] if tool else command[2:]
        done = subprocess.run(
            [sys.executable, command[1], *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        # The doctor may find the toy's weights unsound.
        assert done.returncode == 0 or "doctor" in command[1], said
        assert "Traceback" not in said, said
        outputs.append(said)
    for name in ("by_function", "by_program"):
        lines = (tmp_path / f"output/own/{name}/metrics.json").read_text().splitlines()
        losses = next(line for line in map(json.loads, lines) if "total_loss" in line)
        assert losses["loss_logit_kd"] > 0 and losses["loss_contrast"] > 0
    assert "traffic sign" in outputs[0] and "Traffic_Sign" in outputs[0]
