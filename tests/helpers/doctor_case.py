"""A sound set-up for the doctor, to plant faults in."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from afdcd.cli.doctor import main
from afdcd.cli.train_net import main as train

from helpers import domains
from helpers.tiny_runs import DISTILLED, STUDENT, TEACHER

DATA = {
    "classes": [{"name": n, "color": list(c)} for n, c in domains.TILE_COLORS.items()],
    "labels": {"encoding": "rgb", "ignore": [[0, 0, 0]]},
    "files": {"images": "tiles", "labels": "masks", "label_suffix": "_mask.png"},
    "splits": {"train": {"share": 0.75}, "val": {"share": 0.25}},
}


def write_sound(folder: Path) -> None:
    """Data, configs and a teacher that was trained a little."""
    domains.write_aerial(folder, 16)
    student = copy.deepcopy(STUDENT)
    student["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] = 3
    student["DATASETS"] = {"TRAIN": ["data.yaml:train"], "TEST": ["data.yaml:val"]}
    distilled = copy.deepcopy(DISTILLED)
    # The published form's weights would be far too small for so small a map.
    afdcd = {"REDUCTION": "mean", "RECONSTRUCTION_WEIGHT": 1.0}
    distilled["MODEL"]["DISTILLER"]["LOSSES"]["afdcd"] |= afdcd
    distilled["MODEL"]["DISTILLER"]["TEACHER"]["WEIGHTS"] = str(folder / "teacher.pth")
    files = {"data": DATA, "student": student, "teacher": TEACHER, "distilled": distilled}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    words = ["--runtime", "embedded", "--config-file", str(folder / "teacher.yaml")]
    words += ["SOLVER.MAX_ITER", "450", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.BASE_LR", "0.05"]
    words += [
        "SOLVER.CHECKPOINT_PERIOD",
        "0",
        "INPUT.SCALE_CROP.SCALES",
        "[1.0,1.0]",
        "INPUT.SCALE_CROP.SIZE",
        "[48,64]",
    ]
    assert train([*words, "OUTPUT_DIR", str(folder / "run")]) == 0
    (folder / "run/student_final.pth").rename(folder / "teacher.pth")
    shutil.rmtree(folder / "run")


class Case:
    """A copy of the sound set-up to plant a fault in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words: list[str] = []

    def change(self, file: str, **content: Any) -> None:
        """Merge keys into a YAML file."""
        path = self.folder / f"{file}.yaml"

        def merge(below: dict, above: dict) -> dict:
            for key, value in above.items():
                inner = isinstance(value, dict) and isinstance(below.get(key), dict)
                below[key] = merge(below[key], value) if inner else value
            return below

        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), content)))

    def override(self, *words: str) -> None:
        self.words += words

    @property
    def images(self) -> list[Path]:
        return sorted((self.folder / "tiles").rglob("*.jpg"))

    @property
    def masks(self) -> list[Path]:
        return sorted((self.folder / "masks").rglob("*.png"))

    def weights(self, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
        path = self.folder / "teacher.pth"
        content = torch.load(path, weights_only=True)
        edit(content.get("model", content))
        torch.save(content, path)


def examine(case: Case, capsys, config: str = "distilled") -> dict[str, Any]:
    words = ["--json", "--runtime", "embedded", "--config-file"]
    code = main(
        [
            *words,
            str(case.folder / f"{config}.yaml"),
            *("OUTPUT_DIR", str(case.folder / "out")),
            *case.words,
        ]
    )
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["ok"] else 1)
    return report
