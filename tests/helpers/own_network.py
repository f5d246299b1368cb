"""The backbone and the loss of docs/extending.md in a folder of their own, with configs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

TEXT = (Path(__file__).parents[2] / "docs/extending.md").read_text()
# Leaves a file for every process that runs it.
MARK = """
import os
open(f"{__file__}.{os.getpid()}.ran", "x").close()
"""


def network_code(name: str) -> str:
    """The example, its backbone called ``name``: a name belongs to one file in a process."""
    return _code("my_network").replace('"four_convs"', f'"{name}"')


def _code(file: str) -> str:
    (code,) = re.findall(rf"```python\n(# file: own/{file}.py\n.*?)```", TEXT, re.DOTALL)
    return code


def write_own_network(configs: Path, name: str) -> Path:
    """Write my_network.py, my_loss.py, student.yaml and distilled.yaml beside the tiny runs.

    Args:
        configs: their folder.
        name: of the backbone, and of the loss that distilled.yaml adds.

    Returns:
        their folder.
    """
    folder = configs.parent / "elsewhere"
    folder.mkdir()
    (folder / "my_network.py").write_text(network_code(name) + MARK)
    student = {
        "_BASE_": "../configs/student.yaml",
        "IMPORTS": ["my_network.py"],
        "MODEL": {
            "BACKBONE": {"NAME": name},
            "FOUR_CONVS": {"WIDTH": 4},
            "SEM_SEG_HEAD": {"AUX_WEIGHT": 0.0},
        },
        "DATALOADER": {"NUM_WORKERS": 2},
        "SOLVER": {"MAX_ITER": 4},
    }
    (folder / "my_loss.py").write_text(
        _code("my_loss").replace('register("channel_means")', f'register("{name}")')
    )
    distilled = {
        "_BASE_": ["../configs/distilled.yaml", "student.yaml"],
        "IMPORTS": ["my_loss.py"],
        "MODEL": {
            "META_ARCHITECTURE": "Distiller",
            "DISTILLER": {"LOSSES": {"means": {"NAME": name, "SCALE": 0.5}}},
        },
    }
    for file, content in (("student", student), ("distilled", distilled)):
        (folder / f"{file}.yaml").write_text(yaml.safe_dump(content))
    return folder


def processes_that_ran(folder: Path) -> int:
    """How many processes have run my_network.py; each of them once."""
    return len(list(folder.glob("my_network.py.*.ran")))
