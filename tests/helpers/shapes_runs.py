"""Short runs of the tiny panoptic and instance configs on the synthetic shapes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from afdcd.d2.config import configure
from afdcd.d2.modeling import build_student
from afdcd.d2.panoptic import PanopticEvaluator
from afdcd.d2.panoptic_data import segment_ids, separated_classes
from afdcd.data.synthetic.shapes import render_shapes

CONFIGS = Path(__file__).parents[2] / "projects/AfDCD/configs"
# Shorter than the configs themselves.
SHORT = ["SOLVER.WARMUP_ITERS", "5", "SOLVER.CHECKPOINTS_KEPT", "9"]
SHORT += ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.02"]
# The paper's for Cityscapes, so that the terms fall within a few dozen iterations.
AFDCD = "MODEL.DISTILLER.LOSSES.afdcd"
PAPER = [f"{AFDCD}.RECONSTRUCTION_WEIGHT", "33.6", f"{AFDCD}.CONTRAST_WEIGHT", "0.08"]


def tiny(name: str) -> Path:
    return CONFIGS / "tiny" / f"{name}.yaml"


def distilled(task: str, teachers: Path, *words: str) -> tuple[Path, list[str]]:
    """Config and overrides of a distillation from a teacher in ``teachers``."""
    weights = str(teachers / f"{task}.pth")
    return tiny(f"afdcd_{task}"), [
        *(*SHORT, *PAPER, "MODEL.DISTILLER.TEACHER.WEIGHTS", weights),
        *words,
    ]


def cut_back(run: Path, checkpoint: str) -> None:
    """Make a finished run look as if it had been killed after a checkpoint."""
    for path in [*run.glob("model_*.pth"), run / "student_final.pth"]:
        if path.name > checkpoint or path.name == "model_best.pth":
            path.unlink(missing_ok=True)
    (run / "last_checkpoint").write_text(checkpoint)


def copy_run(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def write_teacher(task: str, path: Path) -> None:
    """Weights of an untrained teacher whose normalization fits the shapes, so that its maps do."""
    cfg = configure(str(tiny(f"{task}_teacher")), [])
    torch.manual_seed(0)
    teacher = build_student(cfg)
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the average of all batches
    images = [render_shapes((0, index))[0] for index in range(8)]
    batch = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images])
    with torch.no_grad():
        features = teacher.backbone((batch - teacher.pixel_mean) / teacher.pixel_std)
        if task == "panoptic_fpn":
            teacher.sem_seg_head.layers(features)
    torch.save({"model": teacher.state_dict()}, path)


def score_the_truth(name: str, standard: str) -> dict[str, float]:
    """Panoptic quality of PanopticFPN's outputs where they are the truth.

    Args:
        name: of the data set.
        standard: the same images in the standard form.
    """
    records = DatasetCatalog.get(standard)  # draws the shapes
    metadata = MetadataCatalog.get(standard)
    things, stuff = separated_classes(metadata)
    raw_ids = {
        number: raw
        for numbers in (
            metadata.thing_dataset_id_to_contiguous_id,
            metadata.stuff_dataset_id_to_contiguous_id,
        )
        for raw, number in numbers.items()
    }
    evaluator = PanopticEvaluator(name)
    for record in records:
        with Image.open(record["pan_seg_file_name"]) as picture:
            ids = torch.from_numpy(segment_ids(np.asarray(picture.convert("RGB"))))
        segments = []
        for info in record["segments_info"]:
            raw = raw_ids[info["category_id"]]
            kind = things[raw] if raw in things else stuff[raw]
            segments.append({"id": info["id"], "isthing": raw in things, "category_id": kind})
        evaluator.process([{"image_id": record["image_id"]}], [{"panoptic_seg": (ids, segments)}])
    return evaluator.evaluate()["panoptic_seg"]
