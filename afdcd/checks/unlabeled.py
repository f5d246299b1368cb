"""Images without labels: whether they are there, can be read, and are kept apart from the test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from afdcd.checks.data import FILES_CHECKED, check_sizes, real_files
from afdcd.data import DataError
from afdcd.data.images import examine_image
from afdcd.data.listing import spread
from afdcd.data.settings import LoadingSettings
from afdcd.data.spec import Record
from afdcd.data.unlabeled import UnlabeledImages
from afdcd.engine.precision import autocast
from afdcd.engine.runtime import Runtime
from afdcd.evaluation import predict
from afdcd.tasks import Task
from afdcd.utils.findings import Report
from afdcd.utils.problems import Problem
from afdcd.utils.progress import progress
from afdcd.utils.sample_keys import UNLABELED

KEY = "DATASETS.UNLABELED"
# Images of each set that the teacher's confidence is measured on.
_LOOKED_AT = 8
# The teacher doubts another domain this many times as much, and is less sure by this much.
_DOUBT, _DROP = 2.0, 0.05


def find_unlabeled_sets(run: Runtime, problems: list[str]) -> list[UnlabeledImages]:
    """What ``DATASETS.UNLABELED`` names; what fails joins ``problems``."""
    found = []
    for name in run.unlabeled_names:
        try:
            found.append(run.find_unlabeled(name))
        except (DataError, ValueError, OSError) as error:
            problems.append(Problem(f"{KEY}: {error}", "dataset"))
    return found


def overlap_problems(unlabeled: Sequence[UnlabeledImages], test: Sequence[Task]) -> list[str]:
    """Whether images are both learnt from and scored: the same files, or copies of them."""
    problems: list[str] = []
    scored = [real_files(task.dataset.records) for task in test]
    for images in unlabeled:
        files = real_files(images.records)
        for task, others in zip(test, scored, strict=True):
            shared = files & others or _copies(files, others)
            if shared:
                problems.append(
                    Problem(
                        f"{KEY}: {images.name} and {task.dataset.spec.name} share {len(shared)} "
                        f"images, e.g. {min(shared)}: scores would be of images that the student "
                        "has learnt from",
                        "leak",
                    )
                )
    return problems


def _copies(files: set[str], others: set[str]) -> set[str]:
    """The files that have the content of one of the others."""
    digest = lru_cache(maxsize=None)(_digest)
    by_size: dict[int, list[str]] = {}
    for other in others:
        by_size.setdefault(_size(other), []).append(other)
    return {
        file
        for file in files
        if any(digest(file) == digest(other) for other in by_size.get(_size(file), ()))
    }


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1  # named where it is opened


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return path


def check_unlabeled(
    unlabeled: Sequence[UnlabeledImages],
    loading: LoadingSettings,
    report: Report,
    *,
    limit: int | None = FILES_CHECKED,
) -> None:
    """Open images and judge them; training and doctor do the same.

    Args:
        unlabeled: the images.
        loading: how they are loaded.
        report: takes what is found.
        limit: files of each set, evenly spread; None for all.
    """
    for images in unlabeled:
        opened = spread(images.records, limit)
        broken, damaged = [], []
        for record in progress(opened, f"checking {images.name}"):
            try:
                _, damage = examine_image(record["file_name"], record.get("window"))
            except DataError as error:
                broken.append(str(error))
                continue
            damaged += [damage] if damage else []
        report.fix("file", *broken[:5])
        report.note("file", *damaged[:5])
        report.facts[f"unlabelled images of {images.name}"] = {
            "opened": len(opened),
            "of": len(images.records),
            "unusable": len(broken),
        }
        check_sizes(images.name, images.records, loading, report)


def unlabeled_file_problems(
    unlabeled: Sequence[UnlabeledImages], loading: LoadingSettings
) -> list[str]:
    """What stands in the way in the images' files: see `check_unlabeled`."""
    report = Report()
    check_unlabeled(unlabeled, loading, report)
    return [finding.text for finding in report.to_fix]


def compare_confidence(
    side: Runtime,
    teacher: nn.Module,
    labeled: Task,
    unlabeled: Sequence[UnlabeledImages],
    report: Report,
) -> None:
    """How sure the teacher is of images without labels, beside images with labels.

    Args:
        side: the teacher's config.
        teacher: on its device.
        labeled: a task with labelled images.
        unlabeled: the images without.
        report: takes what is found; nothing where the task knows no confidence.
    """
    known = _confidence(side, teacher, labeled, labeled.dataset.records)
    if known is None:
        return
    name = labeled.dataset.spec.name
    for images in unlabeled:
        value = _confidence(side, teacher, labeled, images.records)
        if value is None:
            continue
        report.facts[f"teacher's confidence on {images.name}"] = {
            "mean": value,
            f"on {name}": known,
        }
        if 1 - value > _DOUBT * (1 - known) and known - value > _DROP:
            report.note(
                "confidence",
                f"the teacher is far less sure of {images.name} (mean confidence {value:.2f}) than "
                f"of {name} ({known:.2f}): are they of another domain? What it says there may be "
                "wrong: look at predictions (tools/predict.py), or set MIN_CONFIDENCE of logit_kd",
            )


def _confidence(
    side: Runtime, teacher: nn.Module, task: Task, records: Sequence[Record]
) -> float | None:
    """The mean over some images of what the task calls confidence."""
    settings = side.evaluation_settings()
    mapper = settings.loading.evaluation_mapper()
    device = next(teacher.parameters()).device
    teacher.eval()
    values = []
    for record in spread(records, _LOOKED_AT):
        try:
            sample = mapper(record)
        except DataError:
            continue  # named by the check of the files
        with torch.no_grad(), autocast(settings.precision, device):
            output = predict(settings.inference, teacher, [sample])[0]
        value = task.confidence(output)
        if value is None:
            return None
        values.append(value)
    return sum(values) / len(values) if values else None


def describe_training_images(records: Sequence[Record]) -> str:
    """How many images a run trains on, in a sentence."""
    unlabeled = sum(bool(record.get(UNLABELED)) for record in records)
    labeled = len(records) - unlabeled
    if not unlabeled:
        return f"{labeled} training images"
    return f"{labeled} training images with labels, {unlabeled} without"
