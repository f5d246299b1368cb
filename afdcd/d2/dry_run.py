"""What the doctor needs of Detectron2 for tasks other than semantic segmentation."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from torch import nn

from afdcd.d2.checks import catalog_problems, class_count_problems
from afdcd.d2.evaluation import build_evaluators
from afdcd.d2.loader import detectron2_training_loader
from afdcd.d2.mappers import MAPPERS
from afdcd.d2.record_files import file_problems
from afdcd.d2.scores import MainScore, main_score
from afdcd.data.listing import spread


def task_problems(cfg: Any, limit: int | None) -> list[tuple[str, str]]:
    """(kind, sentence) of what is wrong with the data sets of ``INPUT.MAPPER: detectron2``.

    Args:
        cfg: the config.
        limit: how many records of a data set to look at, evenly spread; None for all.
    """
    found: list[tuple[str, str]] = []
    for key in ("TRAIN", "TEST"):
        names, title = cfg.DATASETS[key], f"DATASETS.{key}"
        wrong = catalog_problems(cfg, names, title, scored=key == "TEST")
        found += [("dataset", text) for text in wrong]
        found += [("classes", text) for text in class_count_problems(cfg, names, title)]
        if not wrong:
            found += file_problems(cfg, key, limit)
    return list(dict.fromkeys(found))


def teacher_score(cfg: Any, teacher_cfg: Any, teacher: nn.Module, limit: int | None) -> MainScore:
    """The teacher's main score on the first test set.

    Args:
        cfg: the student's config.
        teacher_cfg: the teacher's.
        teacher: on its device.
        limit: how many images to score it on, evenly spread; None for all.
    """
    name = cfg.DATASETS.TEST[0]
    mapper = MAPPERS.get(cfg.INPUT.MAPPER)(teacher_cfg, False)
    samples = [mapper(record) for record in spread(DatasetCatalog.get(name), limit)]
    teacher.eval()
    figures: dict[str, Any] = {}
    # COCO's own evaluation prints.
    with TemporaryDirectory() as folder, torch.no_grad(), redirect_stdout(StringIO()):
        own = teacher_cfg.clone()
        own.defrost()
        own.OUTPUT_DIR, own.INPUT.MAPPER = folder, cfg.INPUT.MAPPER
        evaluators = build_evaluators(own, name)
        for evaluator in evaluators:
            evaluator.reset()
        for sample in samples:
            output = teacher([sample])
            for evaluator in evaluators:
                evaluator.process([sample], output)
        for evaluator in evaluators:
            # Of these images alone, since others would count as missed.
            ids = [sample["image_id"] for sample in samples]
            coco = isinstance(evaluator, COCOEvaluator)
            figures |= (evaluator.evaluate(img_ids=ids) if coco else evaluator.evaluate()) or {}
    return main_score(own, {name: figures})


def task_batch(cfg: Any, count: int) -> list[dict[str, Any]]:
    """The first samples of a training run."""
    few = cfg.clone()
    few.defrost()
    few.SOLVER.IMS_PER_BATCH, few.DATALOADER.NUM_WORKERS = count, 0
    loader = detectron2_training_loader(few, seed=max(cfg.SEED, 0), first=0)
    return next(iter(loader))
