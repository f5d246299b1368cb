"""What a recorded teacher depends on, and in what a folder's record is of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from afdcd.config import differing, flat_values
from afdcd.data.datasets import datasets_root
from afdcd.data.spec import Record
from afdcd.distill import distiller_settings
from afdcd.distill.targets import Target, is_logits
from afdcd.engine.runtime import Runtime
from afdcd.models.weights import is_address
from afdcd.utils.problems import SetupError, first_few

_TEACHER = "MODEL.DISTILLER.TEACHER"
KEY = f"{_TEACHER}.RECORD"
# Raised whenever what is stored changes its meaning.
FORMAT = 2
MANIFEST = "record.json"
# What a reader of a message knows the contents by.
_WORDS = {
    "format": "the format of records",
    "seed": f"{KEY}.SEED",
    "dtype": f"{KEY}.DTYPE",
    "top_classes": f"{KEY}.TOP_CLASSES",
    "targets": "TAPS and DIMS of the losses",
    "precision": f"{_TEACHER}.DTYPE, or that of SOLVER.AMP",
    "resolution": f"{_TEACHER}.RESOLUTION",
    "scales": f"{_TEACHER}.SCALES",
    "flip": f"{_TEACHER}.FLIP",
    "classes": "the teacher's channels that logits are compared by",
}
_CHUNK = 1 << 22


def record_contents(run: Runtime, records: Sequence[Record]) -> dict[str, Any]:
    """What the tensors of a view depend on, by name."""
    settings = distiller_settings(run.cfg)
    teacher, encoding = settings.teacher, settings.teacher.record.encoding
    student = flat_values(run.cfg)
    own = run.own_mapper
    names = ("MAPPER", "FORMAT", "SCALE_CROP.", "RANDOM_FLIP", "MIN_SIZE_TRAIN")
    inputs = [*(f"INPUT.{name}" for name in names), "MODEL.PIXEL_MEAN"]
    chosen = inputs if own else ["INPUT."]
    amp = run.cfg.SOLVER.AMP
    targets = dict.fromkeys(
        Target(path, loss.dims).name for loss in settings.losses for _, path in loss.taps
    )
    sides = run.all_teachers()
    return {
        "format": FORMAT,
        "seed": teacher.record.seed,
        "dtype": encoding.dtype,
        "top_classes": encoding.top_classes,
        "targets": sorted(targets),
        "precision": teacher.dtype or (amp.DTYPE if amp.ENABLED else "float32"),
        "resolution": teacher.resolution,
        "scales": list(teacher.scales),
        "flip": teacher.flip,
        "views": {
            key: _plain(value)
            for key, value in student.items()
            if key in chosen or key.startswith(tuple(n for n in chosen if n.endswith(".")))
        },
        "teachers": [
            {"weights": _files_hash(side.weight_files), "config": _plain(side.identity)}
            for side in sides
        ],
        "classes": _compared_classes(run, sides[0]),
        "images": [_image(record) for record in records],
    }


def _compared_classes(run: Runtime, teacher: Runtime) -> list[int] | None:
    """The teacher's channels that logits are compared by; None for all of them."""
    matching = run.class_matching(teacher) if run.compares_classes else None
    return None if matching is None or matching.is_identity else list(matching.teacher_channels)


def _files_hash(paths: Sequence[str]) -> str:
    if len(paths) == 1 and is_address(paths[0]):
        return paths[0]
    try:
        total = hashlib.sha256()
        for path in paths:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
        return total.hexdigest() if paths else ""
    except OSError:
        return ""  # a complete record does without


def _image(record: Record) -> list[Any]:
    path = Path(record["file_name"])
    try:
        size = path.stat().st_size
    except OSError:
        size = -1
    root = datasets_root().absolute()
    absolute = path.absolute()
    name = absolute.relative_to(root) if absolute.is_relative_to(root) else absolute
    return [name.as_posix(), size, record.get("height"), record.get("width")]


def versions() -> dict[str, str]:
    """Of the packages whose rounding and reading of files a record may show."""
    return {"torch": str(torch.__version__).partition("+")[0], "opencv": cv2.__version__}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest; empty where there is none.

    Raises:
        SetupError: it can't be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content["shapes"], dict):
            raise TypeError("no mapping")
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SetupError([f"{path} can't be read ({error!r:.100}): is it a record?"]) from error


def spare_targets(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The targets that a record holds beside all that are wanted; none where it lacks one."""
    there = found.get("targets")
    there = set(map(str, there)) if isinstance(there, list) else set()
    return sorted(there - set(wanted["targets"])) if there >= set(wanted["targets"]) else []


def refuse_differences(
    folder: Path, wanted: Mapping[str, Any], found: Mapping[str, Any], *, spare: bool = False
) -> None:
    """Raise SetupError where a record is of something else than is wanted, with what differs.

    Args:
        folder: of the record.
        wanted: see `record_contents`.
        found: the record's manifest.
        spare: whether it may hold more targets than those that are wanted.
    """
    alike = set()
    if spare and spare_targets(wanted, found):
        alike.add("targets")
        if not any(map(is_logits, wanted["targets"])):
            alike.add("classes")  # of logits alone
    problems = []
    for key, value in wanted.items():
        other = found.get(key)
        if other == value or key in alike:
            continue
        problems += _differences(key, value, other)
    if problems:
        where = f"{KEY}.FOLDER {folder} is of another teacher or other views"
        *others, last = first_few([f"{where}: {text}" for text in problems], what="differences")
        raise SetupError([*others, f"{last}. Name another folder, or delete it to record anew"])


def _differences(key: str, wanted: Any, found: Any) -> list[str]:
    if key == "images" and isinstance(found, list):
        if len(found) != len(wanted):
            return [f"it has {len(found)} training images, the run {len(wanted)}"]
        return [
            f"training image {number} is {new}, in the record {old} (name, bytes, height, width)"
            for number, (new, old) in enumerate(zip(wanted, found, strict=True))
            if new != old
        ]
    if key == "teachers" and isinstance(found, list) and len(found) == len(wanted):
        problems = []
        for number, (new, old) in enumerate(zip(wanted, found, strict=True)):
            whose = "the teacher" if number == 0 else f"other teacher {number}"
            if new["weights"] and new["weights"] != old["weights"]:
                problems.append(f"{whose}'s weights are another file's")
            changed = differing(old["config"], new["config"])
            problems += [f"{whose}'s {k}: {was} -> {now}" for k, (was, now) in changed.items()]
        return problems
    if isinstance(wanted, dict) and isinstance(found, dict):
        changed = differing(found, wanted)
        return [f"{name}: {was} -> {now}" for name, (was, now) in changed.items()]
    return [f"{_WORDS.get(key, key)}: {found} -> {wanted}"]
