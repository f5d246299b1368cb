"""What the doctor needs of Detectron2 for tasks other than semantic segmentation."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from afdcd.d2.loader import detectron2_training_loader
from afdcd.data import DataError
from afdcd.data.labels import image_size
from afdcd.data.scan import spread

# Meta-architectures with ROI heads, whose classes are the data set's things.
WITH_THINGS = ("GeneralizedRCNN", "PanopticFPN")
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
        if not cfg.DATASETS[key]:
            found.append(("dataset", f"DATASETS.{key} is empty: name a data set"))
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog.list():
                near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
                hint = f"; did you mean {', '.join(near)}?" if near else ""
                found.append(("dataset", f"DATASETS.{key}: no data set is called {name!r}{hint}"))
                continue
            try:
                records = DatasetCatalog.get(name)
            except Exception as error:  # a loader of anyone's
                text = f"{type(error).__name__}: {error}"[:500]
                found.append(("dataset", f"DATASETS.{key}: {name} can't be loaded: {text}"))
                continue
            found += [("classes", text) for text in _class_problems(cfg, name)]
            problems = [t for r in spread(records, limit) for t in _record_problems(r, name)]
            found += [("file", text) for text in problems[:SHOWN]]
            if len(problems) > SHOWN:
                found.append(("file", f"{name}: {len(problems) - SHOWN} more records like these"))
            if not records:
                found.append(("dataset", f"{name} holds no images"))
    return list(dict.fromkeys(found))


def task_batch(cfg: Any, count: int) -> list[dict[str, Any]]:
    """The first samples of a training run."""
    few = cfg.clone()
    few.defrost()
    few.SOLVER.IMS_PER_BATCH, few.DATALOADER.NUM_WORKERS = count, 0
    loader = detectron2_training_loader(few, seed=max(cfg.SEED, 0), first=0)
    return next(iter(loader))


def _class_problems(cfg: Any, name: str) -> list[str]:
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture == "Distiller":
        architecture = cfg.MODEL.DISTILLER.STUDENT
    metadata = MetadataCatalog.get(name)
    problems = []
    for key, wanted, classes in (
        ("ROI_HEADS", architecture in WITH_THINGS, getattr(metadata, "thing_classes", None)),
        ("SEM_SEG_HEAD", "Panoptic" in architecture, getattr(metadata, "stuff_classes", None)),
    ):
        got = cfg.MODEL[key].NUM_CLASSES
        if wanted and classes is not None and len(classes) != got:
            problems.append(
                f"MODEL.{key}.NUM_CLASSES is {got}, but {name} has {len(classes)} such classes"
            )
    return problems


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
