"""The teacher's scores on a sample: is it trained, and are its classes in the student's order?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from afdcd.checks.findings import Report
from afdcd.checks.scan import spread
from afdcd.checks.step import majority_miou
from afdcd.data import DataError, Dataset, read_labels
from afdcd.data.from_config import evaluation_mapper
from afdcd.engine.precision import autocast
from afdcd.evaluation import ConfusionMatrix, predict


def score_teacher(
    cfg: Any, teacher: nn.Module, dataset: Dataset, *, limit: int | None, report: Report
) -> None:
    """Evaluate the teacher on some images of a test set, and judge it."""
    classes = len(dataset.spec.classes)
    confusion = ConfusionMatrix(classes)
    mapper = evaluation_mapper(cfg, dataset.label_map)
    device = next(teacher.parameters()).device
    teacher.eval()
    used = 0
    for record in spread(dataset.records, limit):
        try:
            labels = read_labels(record["sem_seg_file_name"], dataset.label_map)
            sample = mapper(record)
        except DataError:
            continue  # named by the check of the files
        with torch.no_grad(), autocast(cfg, device):
            logits = predict(cfg, teacher, [sample])[0]["sem_seg"]
        if len(logits) != classes:
            return  # said by the check of the classes
        confusion.update(logits.argmax(0).cpu().numpy(), labels)
        used += 1
    if not confusion.counts.any():
        return
    miou = 100 * confusion.mean_iou()
    baseline = majority_miou(confusion.counts.sum(1))
    report.facts["teacher"] = {
        f"mIoU on {used} images of {dataset.spec.name}": miou,
        "the commonest class everywhere would have": baseline,
    }
    order = permuted_classes(confusion)
    if order:
        swaps = ", ".join(
            f"{dataset.spec.classes[a]} as {dataset.spec.classes[b]}" for a, b in order[:5]
        )
        report.fix(
            "class-order",
            f"the teacher predicts {swaps}: its classes seem to be in another order than those of "
            f"{dataset.spec.name}",
        )
    elif miou <= 1.2 * baseline:
        report.fix(
            "teacher",
            f"the teacher's mIoU on {used} images of {dataset.spec.name} is {miou:.2f}, no better "
            f"than one class everywhere ({baseline:.2f}): are its weights trained, INPUT.FORMAT "
            "and PIXEL_MEAN those of its training?",
        )


def permuted_classes(confusion: ConfusionMatrix) -> list[tuple[int, int]]:
    """(true, predicted) classes of a reordering that explains the predictions much better.

    Each class is given to the one most of its pixels are predicted as. That is a reordering when it
    is one-to-one on the classes that occur, moves at least two, and more than doubles the pixels
    that are right, to more than half.
    """
    counts = confusion.counts
    shown = np.flatnonzero(counts.sum(1))
    guess = counts[shown].argmax(1)
    moved = [(int(a), int(b)) for a, b in zip(shown, guess, strict=True) if a != b]
    right = counts[shown, shown].sum()
    reordered = counts[shown, guess].sum()
    one_to_one = len(set(guess.tolist())) == len(shown)
    better = reordered > 2 * right and 2 * reordered > counts.sum()
    return moved if one_to_one and len(moved) >= 2 and better else []
