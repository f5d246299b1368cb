"""What the doctor needs of Detectron2 for tasks other than semantic segmentation."""

from __future__ import annotations

from typing import Any

from afdcd.d2.checks import catalog_problems, class_count_problems
from afdcd.d2.loader import detectron2_training_loader
from afdcd.d2.record_files import file_problems


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


def task_batch(cfg: Any, count: int) -> list[dict[str, Any]]:
    """The first samples of a training run."""
    few = cfg.clone()
    few.defrost()
    few.SOLVER.IMS_PER_BATCH, few.DATALOADER.NUM_WORKERS = count, 0
    loader = detectron2_training_loader(few, seed=max(cfg.SEED, 0), first=0)
    return next(iter(loader))
