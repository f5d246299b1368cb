"""PanopticFPN distillation on files laid out as Cityscapes' panoptic ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.data.datasets.cityscapes_panoptic import register_all_cityscapes_panoptic

from afdcd.d2 import run as detectron2_run
from afdcd.d2.config import configure
from afdcd.d2.panoptic_data import PanopticMapper
from afdcd.data.synthetic.shapes import BOX, DISC, GRASS, SKY, render_shapes

from helpers.d2_runs import losses, train_detectron2
from helpers.shapes_runs import SHORT, score_the_truth, tiny

NAMES = ("cityscapes_fine_panoptic_train", "cityscapes_fine_panoptic_val")
# Cityscapes' ids of what takes the place of the shapes.
IDS = {DISC: 24, BOX: 26, SKY: 23, GRASS: 22}


def write_cityscapes(root: Path) -> None:
    """Images of shapes, as persons and cars before sky and terrain."""
    categories = [
        {"id": c["id"], "name": c["name"], "isthing": c["isthing"]} for c in CITYSCAPES_CATEGORIES
    ]
    train_ids = {c["id"]: c["trainId"] for c in CITYSCAPES_CATEGORIES}
    things = {c["id"] for c in CITYSCAPES_CATEGORIES if c["isthing"]}
    for split, count in (("train", 6), ("val", 3)):
        folder = root / f"cityscapes/gtFine/cityscapes_panoptic_{split}"
        folder.mkdir(parents=True)
        annotations = []
        for index in range(count):
            pixels, segments = render_shapes((len(split), index))
            stem = f"aachen_{index:06d}_000019"
            ids = np.zeros(pixels.shape[:2], np.int64)
            labels = np.full(ids.shape, 255, np.uint8)
            infos = []
            for number, (category, mask, polygon) in enumerate(segments):
                raw = IDS[category]
                crowd = raw in things and polygon is None
                identity = raw if raw not in things or crowd else raw * 1000 + number
                ids[mask] = identity
                labels[mask] = train_ids[raw]
                infos.append({"id": identity, "category_id": raw, "iscrowd": int(crowd)})
            name = f"{stem}_gtFine_panoptic.png"
            bgr = np.stack([ids // 65536, ids // 256 % 256, ids % 256], axis=-1)
            files = {
                folder / name: bgr.astype(np.uint8),
                root / f"cityscapes/leftImg8bit/{split}/aachen/{stem}_leftImg8bit.png": pixels,
                root / f"cityscapes/gtFine/{split}/aachen/{stem}_gtFine_labelTrainIds.png": labels,
            }
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(path), np.ascontiguousarray(content))
            annotations.append({"image_id": stem, "file_name": name, "segments_info": infos})
        content = {"annotations": annotations, "categories": categories, "images": []}
        Path(f"{folder}.json").write_text(json.dumps(content))


@pytest.fixture
def cityscapes(tmp_path):
    root = tmp_path / "data"
    write_cityscapes(root)
    before = {name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in NAMES}
    register_all_cityscapes_panoptic(str(root))
    yield
    for name, (load, metadata) in before.items():
        DatasetCatalog[name], MetadataCatalog[name] = load, metadata


def test_the_truth_as_prediction_scores_100(cityscapes):
    figures = score_the_truth(NAMES[1], NAMES[1])
    assert set(figures.values()) == {100.0}


def test_samples(cityscapes):
    words = ["INPUT.RANDOM_FLIP", "none", "DATASETS.TRAIN", f"['{NAMES[0]}']"]
    mapper = PanopticMapper(configure(str(tiny("panoptic_fpn_student")), words), True)
    persons = cars = 0
    for record in DatasetCatalog.get(NAMES[0]):
        sample = mapper(record)
        # void; things; terrain and sky, the 10th and 11th kind of Cityscapes' stuff
        assert set(sample["sem_seg"].unique().tolist()) <= {255, 0, 10, 11}
        classes = sample["instances"].gt_classes.tolist()
        persons, cars = persons + classes.count(0), cars + classes.count(2)
        assert set(classes) <= {0, 2}
        masks = sample["instances"].gt_masks.tensor.any(0)
        assert (sample["sem_seg"][masks] == 0).all()
    assert persons and cars


def test_distils_and_scores(cityscapes, tmp_path):
    classes = ["MODEL.ROI_HEADS.NUM_CLASSES", "8", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "12"]
    words = [*SHORT, *classes, "SOLVER.MAX_ITER", "2"]
    words += ["DATASETS.TRAIN", f"['{NAMES[0]}']", "DATASETS.TEST", f"['{NAMES[1]}']"]
    train_detectron2(tiny("panoptic_fpn_teacher"), tmp_path / "t", *words)
    words += ["MODEL.DISTILLER.TEACHER.WEIGHTS", str(tmp_path / "t/student_final.pth")]
    words += ["MODEL.DISTILLER.TEACHER.OPTS", str(classes)]
    results = train_detectron2(tiny("afdcd_panoptic_fpn"), tmp_path / "run", *words)
    assert results["figures"][NAMES[1]].keys() == {"panoptic_seg"}
    terms = losses(tmp_path / "run")[-1]
    assert all(0 < value < 100 for name, value in terms.items() if "contrast" in name)
    assert all(math.isfinite(value) for value in terms.values())
    # The student alone scores what the run says.
    words = [*classes, "DATASETS.TEST", f"['{NAMES[1]}']", "OUTPUT_DIR", str(tmp_path / "again")]
    words += ["MODEL.WEIGHTS", str(tmp_path / "run/student_final.pth")]
    again = detectron2_run.run(str(tiny("panoptic_fpn_student")), words, True, False, 0)
    for name, value in results["figures"][NAMES[1]]["panoptic_seg"].items():
        found = again["figures"][NAMES[1]]["panoptic_seg"][name]
        expected = math.nan if value is None else value
        assert found == pytest.approx(expected, nan_ok=True), name
