"""Training learns: the first look in miniature, beside what guessing would reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from afdcd.data import load_dataset, read_labels
from afdcd.data.synthetic import dataset as synthetic
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[2] / "configs/quickstart"
VAL = "synthetic_scenes_val"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs; its scenes are few."""
    folder = tmp_path_factory.mktemp("learning")
    patch = pytest.MonkeyPatch()
    patch.setenv("DETECTRON2_DATASETS", str(folder / "data"))
    patch.setattr(synthetic, "SPLITS", {"train": (64, 1), "val": (16, 2)})
    yield folder
    patch.undo()


def train(place: Path, name: str, iterations: int) -> tuple[dict, list[dict]]:
    """A run on crops of 64x64: the results, and the lines with losses, each of 20 iterations."""
    words = ["SOLVER.MAX_ITER", str(iterations), "INPUT.SCALE_CROP.SIZE", "[64,64]"]
    words += ["OUTPUT_DIR", str(place / name)]
    words += ["MODEL.DISTILLER.TEACHER.WEIGHTS", str(place / "teacher/student_final.pth")]
    results = run(configure(str(CONFIGS / f"{name}.yaml"), words))
    lines = [json.loads(line) for line in (place / name / "metrics.json").open()]
    return results, [line for line in lines if "total_loss" in line]


def assert_far_above_guessing(figures: dict[str, float]) -> None:
    """Guessing is the commonest class everywhere, or each of the 11 classes as often."""
    dataset = load_dataset(VAL)
    counts = np.zeros(256, int)
    for record in dataset.records:
        labels = read_labels(record["sem_seg_file_name"], dataset.label_map)
        counts += np.bincount(labels.ravel(), minlength=256)
    shares = counts[:11] / counts[:11].sum()
    # A guess of one in eleven meets a class of share p in p / 11 of the pixels.
    chance = 100 * np.mean((shares / 11) / (shares + 1 / 11 - shares / 11))
    commonest = 100 * shares.max() / (shares > 0).sum()
    assert figures["mIoU"] > 2.5 * max(chance, commonest), figures
    assert figures["pACC"] > 1.5 * 100 * shares.max(), figures


def test_a_student_learns(place):
    results, lines = train(place, "student", 150)
    assert_far_above_guessing(results["figures"][VAL])
    assert lines[-1]["loss_sem_seg"] < 0.85 * lines[0]["loss_sem_seg"]


def test_a_distilled_student_follows_its_teacher(place):
    teacher, _ = train(place, "teacher", 100)
    results, lines = train(place, "afdcd", 220)
    assert results["teacher"]["mIoU"] == pytest.approx(teacher["figures"][VAL]["mIoU"])
    assert_far_above_guessing(results["figures"][VAL])
    for term, share in (("logit_kd", 0.7), ("reconstruction", 0.85), ("contrast", 0.5)):
        assert lines[-1][f"loss_{term}"] < share * lines[0][f"loss_{term}"], term
