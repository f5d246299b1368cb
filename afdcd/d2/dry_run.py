"""What the doctor needs of Detectron2 for tasks other than semantic segmentation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from afdcd.d2.checks import catalog_problems, class_count_problems
from afdcd.d2.loader import detectron2_training_loader
from afdcd.data import DataError
from afdcd.data.labels import image_size
from afdcd.data.scan import spread

# Files of a record besides its image.
LABEL_FILES = ("sem_seg_file_name", "pan_seg_file_name")
SHOWN = 5


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
            found += [problem for name in names for problem in _files_problems(name, title, limit)]
    return list(dict.fromkeys(found))


def task_batch(cfg: Any, count: int) -> list[dict[str, Any]]:
    """The first samples of a training run."""
    few = cfg.clone()
    few.defrost()
    few.SOLVER.IMS_PER_BATCH, few.DATALOADER.NUM_WORKERS = count, 0
    loader = detectron2_training_loader(few, seed=max(cfg.SEED, 0), first=0)
    return next(iter(loader))


def _files_problems(name: str, title: str, limit: int | None) -> list[tuple[str, str]]:
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # a loader of anyone's
        text = f"{type(error).__name__}: {error}"[:500]
        return [("dataset", f"{title}: {name} can't be loaded: {text}")]
    if not records:
        return [("dataset", f"{title}: {name} holds no images")]
    problems = [text for r in spread(records, limit) for text in _record_problems(r, name)]
    found = [("file", text) for text in problems[:SHOWN]]
    if len(problems) > SHOWN:
        found.append(("file", f"{name}: {len(problems) - SHOWN} more records like these"))
    return found


def _record_problems(record: dict[str, Any], name: str) -> list[str]:
    path = record["file_name"]
    try:
        height, width = image_size(path)
    except DataError as error:
        return [str(error)]
    problems = []
    stated = record.get("height", height), record.get("width", width)
    if stated != (height, width):
        problems.append(f"{path} is {height}x{width}, but {name} says {stated[0]}x{stated[1]}")
    for key in LABEL_FILES:
        if key in record and not Path(record[key]).is_file():
            problems.append(f"{path} should have the label map {record[key]}")
    things = getattr(MetadataCatalog.get(name), "thing_classes", None)
    annotations: Sequence[dict[str, Any]] = record.get("annotations", ())
    used = {a["category_id"] for a in itertools.islice(annotations, 1000) if "category_id" in a}
    if things is not None and (wrong := sorted(k for k in used if not 0 <= k < len(things))):
        problems.append(
            f"{path} has annotations of the categories {wrong}, but {name} has {len(things)} "
            "classes, 0 and up"
        )
    return problems
