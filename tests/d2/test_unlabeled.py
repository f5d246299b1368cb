"""Images without labels in Detectron2's runtime: as in the embedded one, and in processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog
from PIL import Image

from afdcd.d2.runtime import Detectron2Runtime

from helpers.d2_runs import (
    RUNTIMES,
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
)

LOGITS = "MODEL.DISTILLER.LOSSES.logit_kd"
RECORD = "MODEL.DISTILLER.TEACHER.RECORD"


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def words(photos: Path, *more: str) -> list[str]:
    return ["DATASETS.UNLABELED", f"['{photos}']", *more]


def assert_equal_runs(one: Path, other: Path) -> None:
    a, b = checkpoint(one), checkpoint(other)
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])


@pytest.mark.parametrize(
    "more",
    [
        (f"{LOGITS}.MIN_CONFIDENCE", "0.05"),
        ("DATASETS.TRAIN", "[]"),
        (f"{RECORD}.FOLDER", "record", f"{RECORD}.VIEWS", "2"),
    ],
)
def test_both_runtimes_do_the_same(configs, tmp_path, photos, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    for name, train in RUNTIMES.items():
        train(configs / "distilled.yaml", tmp_path / name, *words(photos, *more))
    assert_equal_runs(tmp_path / "embedded", tmp_path / "detectron2")


def test_two_processes_have_equal_parts(configs, tmp_path, photos):
    """Each sees as many labelled images as the other; what they learn is finite, and resumes."""
    settings = words(photos, "SOLVER.IMS_PER_BATCH", "4", "SOLVER.CHECKPOINTS_KEPT", "9")
    train_detectron2(configs / "distilled.yaml", tmp_path / "run", *settings, num_gpus=2)
    train_detectron2(configs / "distilled.yaml", tmp_path / "parts", *settings, num_gpus=2)
    parts = tmp_path / "parts"
    for name in ("model_0000005.pth", "model_final.pth"):
        (parts / name).unlink()
    (parts / "last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(configs / "distilled.yaml", parts, *settings, num_gpus=2, resume=True)
    assert_equal_runs(tmp_path / "run", parts)


def test_a_head_of_detectron2_without_labels(configs, tmp_path, photos):
    """Its own loss is a mean over no pixels: it counts as 0."""
    head = ["MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", "8"]
    head += ["MODEL.SEM_SEG_HEAD.NORM", "", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"]
    head += ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res5']", f"{LOGITS}", "null"]
    options = words(photos, "DATASETS.TRAIN", "[]", *head)
    train_detectron2(configs / "distilled.yaml", tmp_path / "run", *options)
    values = losses(tmp_path / "run")
    assert all(line["loss_sem_seg"] == 0 for line in values)
    assert all(np.isfinite(value) for line in values for value in line.values())


def test_a_data_set_of_the_users_catalog(configs, photos):
    """Its records are known to the catalog; their labels aren't touched."""
    name = "photos_of_a_user"
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(
            name,
            lambda: [
                {
                    "file_name": str(path),
                    "sem_seg_file_name": "/nowhere.png",
                    "height": 40,
                    "width": 50,
                    "image_id": path.stem,
                }
                for path in sorted(photos.iterdir())
            ],
        )
    run = Detectron2Runtime.configure(
        str(configs / "distilled.yaml"), ["DATASETS.UNLABELED", f"['{name}']"]
    )
    records = run.training_records()
    assert len(records) == 6 + 5
    assert "sem_seg_file_name" not in records[-1] and records[-1]["unlabeled"]
