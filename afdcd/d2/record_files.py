"""The files that Detectron2's mapper would read: whether they are there and what they hold."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from afdcd.d2.config import trained_architecture
from afdcd.d2.datasets import is_own_in_catalog
from afdcd.d2.panoptic_data import is_standard
from afdcd.data import DataError, get_spec
from afdcd.data.images import SIDEWAYS, examine_image, exif_orientation, turned_hint
from afdcd.data.label_files import largest_value, lossy_problem
from afdcd.data.labels import image_size, read_stored_labels
from afdcd.data.listing import spread
from afdcd.utils.problems import SHOWN, first_few

logger = logging.getLogger(__name__)

# Files of a record besides its image.
LABEL_FILES = ("sem_seg_file_name", "pan_seg_file_name")
# Heads that learn from label maps.
SEMANTIC = ("SemanticSegmentor", "PanopticFPN")


@dataclass
class Shown:
    """What the label maps of some data sets show.

    Attributes:
        labels: of the pixels that count.
        maps: that were opened.
        complete: whether they are all.
    """

    labels: set[int] = field(default_factory=set)
    maps: int = 0
    complete: bool = True


def file_problems(cfg: Any, key: str, limit: int | None) -> list[tuple[str, str]]:
    """(kind, sentence) of what is wrong with the files of a key's data sets, all together.

    Args:
        cfg: the config.
        key: ``TRAIN`` or ``TEST``.
        limit: how many records of a data set to look at, evenly spread; None for all.
    """
    names, shown = cfg.DATASETS[key], Shown()
    found = [
        problem
        for name in names
        for problem in record_problems(cfg, name, f"DATASETS.{key}", limit, shown=shown)
    ]
    return found if found or key != "TRAIN" else class_problems(cfg, names, shown)


def class_problems(cfg: Any, names: Sequence[str], shown: Shown) -> list[tuple[str, str]]:
    """Whether the label maps of training sets show anything to learn, and all classes.

    Of data sets that others have registered it isn't known whether they have to show all.
    """
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    title = f"DATASETS.TRAIN: {' and '.join(names)}"
    seen = "" if shown.complete else f" (in a sample of {shown.maps} files)"
    if shown.maps and len(shown.labels) < 2:
        only = "".join(f" but the label {label}" for label in shown.labels) or ""
        text = f"{title}: no pixel shows anything{only}{seen}, so that there is nothing to learn"
        return [("one-class", f"{text}: label two classes at least")]
    absent = sorted(set(range(classes)) - shown.labels)
    own = all(_is_own_unpublished(name) for name in names)
    if shown.maps and shown.complete and own and absent:
        return [("absent-class", f"{title} never shows the labels {absent[:SHOWN]}")]
    return []


def record_problems(
    cfg: Any,
    name: str,
    title: str,
    limit: int | None,
    workers: int = 4,
    shown: Shown | None = None,
) -> list[tuple[str, str]]:
    """(kind, sentence) of what is wrong with a data set's records and their files.

    Args:
        cfg: the config.
        name: of the data set, in Detectron2's catalog.
        title: of the key that names it.
        limit: how many records to look at, evenly spread; None for all.
        workers: threads that open files.
        shown: takes what the label maps show.
    """
    shown = Shown() if shown is None else shown
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # a loader of anyone's
        text = f"{type(error).__name__}: {error}"[:500]
        return [("dataset", f"{title}: {name} can't be loaded: {text}")]
    if not records:
        return [("dataset", f"{title}: {name} holds no images")]
    looked_at = spread(records, limit)
    shown.complete &= len(looked_at) == len(records)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda record: _problems(cfg, record, name, shown), looked_at)
        problems = list(itertools.chain.from_iterable(found))
    return [("file", text) for text in first_few(problems, of=name, what="records")]


def _problems(cfg: Any, record: dict[str, Any], name: str, shown: Shown) -> list[str]:
    path = record["file_name"]
    if "://" in path:  # only Detectron2 knows how to fetch it
        shown.complete = False
        return []
    metadata = MetadataCatalog.get(name)
    try:
        size, damage = _size_as_read(path)
    except DataError as error:
        return [str(error)]
    # Files of a published data set are as they are.
    if damage and not _is_own_unpublished(name):
        logger.warning("%s", damage)
        damage = ""
    problems = [damage] if damage else []
    stated = record.get("height", size[0]), record.get("width", size[1])
    if stated != size:
        problems.append(f"{path} is {size[0]}x{size[1]}, but {name} says {stated[0]}x{stated[1]}")
    for key in LABEL_FILES:
        if key in record and not Path(record[key]).is_file():
            problems.append(f"{path} should have the label map {record[key]}")
    if Path(segments := record.get("pan_seg_file_name", "")).is_file():
        problems += _lossy_problems(segments)
    # Of the standard panoptic form the mapper reads the segments only.
    if trained_architecture(cfg) in SEMANTIC and not is_standard(metadata):
        labels = record.get("sem_seg_file_name", "")
        if Path(labels).is_file():
            problems += _label_problems(cfg, labels, path, size, shown)
    things = getattr(metadata, "thing_classes", None)
    annotations: Sequence[dict[str, Any]] = record.get("annotations", ())
    used = {a["category_id"] for a in itertools.islice(annotations, 1000) if "category_id" in a}
    if things is not None and (wrong := sorted(k for k in used if not 0 <= k < len(things))):
        problems.append(
            f"{path} has annotations of the categories {wrong}, but {name} has {len(things)} "
            "classes, 0 and up"
        )
    return problems


def _label_problems(
    cfg: Any, path: str, image: str, size: tuple[int, int], shown: Shown
) -> list[str]:
    """Whether a label map can be read as Detectron2's mapper reads it, and what it holds."""
    try:
        stored = read_stored_labels(path)
        with Image.open(path) as file:
            mode, scaled = file.mode, largest_value(file)
    except DataError as error:
        return [str(error)]
    if mode != "L" or scaled is not None:
        kind = f"mode {mode}" if scaled is None else f"grey values of 0 to {scaled}"
        changed = "turn into grey values" if scaled is None else "scale to 0 to 255"
        return [
            f"{path} has {kind}, which Detectron2's mapper would {changed}: use "
            "INPUT.MAPPER scale_crop, or store labels as 8-bit grey values"
        ]
    if stored.shape != size:
        return [
            f"{image} is {size[0]}x{size[1]} but its label map {path} is "
            f"{stored.shape[0]}x{stored.shape[1]}"
            f"{turned_hint(image, size, (stored.shape[0], stored.shape[1]))}"
        ]
    head = cfg.MODEL.SEM_SEG_HEAD
    values = np.unique(stored)
    shown.maps += 1
    shown.labels.update(values[values != head.IGNORE_VALUE].tolist())
    wrong = values[(values >= head.NUM_CLASSES) & (values != head.IGNORE_VALUE)]
    if len(wrong):
        return [
            f"{path} holds the labels {', '.join(map(str, wrong[:8]))}, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {head.NUM_CLASSES} and IGNORE_VALUE "
            f"{head.IGNORE_VALUE}"
        ]
    return []


def _lossy_problems(path: str) -> list[str]:
    """Whether a map of panoptic segments is stored in a format that changes its values."""
    try:
        with Image.open(path) as file:
            return [problem] if (problem := lossy_problem(file, path)) else []
    except Exception as error:  # Pillow raises many kinds on broken files
        return [f"{path} can't be read as a label map: {error}"]


def _is_own_unpublished(name: str) -> bool:
    """Whether a data set is known to be the user's own."""
    return is_own_in_catalog(name) and get_spec(name).expected is None


def _size_as_read(path: str) -> tuple[tuple[int, int], str]:
    """Height and width of an image, and what is to be said of damage in it.

    The size is that of the image turned as its EXIF data say: so Detectron2 reads it.

    Raises:
        DataError: it can't be read, or not to its end.
    """
    height, width = image_size(path)
    try:
        with Image.open(path) as image:
            image.load()
            kind = image.format
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{path} can't be read as an image: is it truncated?") from error
    damage = examine_image(path)[1] if kind in ("JPEG", "MPO") else ""
    turned = exif_orientation(path) in SIDEWAYS
    return ((width, height) if turned else (height, width)), damage
