"""The teacher's scores on a sample: is it trained, and are its classes in the student's order?"""

from __future__ import annotations

import numpy as np

from afdcd.data import DatasetSpec
from afdcd.evaluation import ConfusionMatrix
from afdcd.utils.findings import Report


def judge_teacher(
    confusion: ConfusionMatrix, spec: DatasetSpec, images: int, report: Report
) -> None:
    """Judge a teacher by its predictions on a number of images: see `afdcd.tasks.Task`."""
    if not confusion.counts.any():
        return
    miou = 100 * confusion.mean_iou()
    baseline = majority_miou(confusion.counts.sum(1))
    report.facts["teacher"] = {
        f"mIoU on {images} images of {spec.name}": miou,
        "the commonest class everywhere would have": baseline,
    }
    order = permuted_classes(confusion)
    if order:
        swaps = ", ".join(f"{spec.classes[a]} as {spec.classes[b]}" for a, b in order[:5])
        report.fix(
            "class-order",
            f"the teacher predicts {swaps}: its classes seem to be in another order than those of "
            f"{spec.name}",
        )
    elif miou <= 1.2 * baseline:
        report.fix(
            "teacher",
            f"the teacher's mIoU on {images} images of {spec.name} is {miou:.2f}, no better "
            f"than one class everywhere ({baseline:.2f}): are its weights trained, and are "
            "INPUT.FORMAT and PIXEL_MEAN those of its training?",
        )


def permuted_classes(confusion: ConfusionMatrix) -> list[tuple[int, int]]:
    """(true, predicted) classes of a reordering that explains the predictions much better.

    Each class is mapped to the one that most of its pixels are predicted as. That is a reordering
    if it is one-to-one on the classes that occur, moves at least two, and more than doubles the
    correct pixels, to more than half.
    """
    counts = confusion.counts
    occurring = np.flatnonzero(counts.sum(1))
    guess = counts[occurring].argmax(1)
    moved = [(int(a), int(b)) for a, b in zip(occurring, guess, strict=True) if a != b]
    correct = counts[occurring, occurring].sum()
    reordered = counts[occurring, guess].sum()
    one_to_one = len(set(guess.tolist())) == len(occurring)
    better = reordered > 2 * correct and 2 * reordered > counts.sum()
    return moved if one_to_one and len(moved) >= 2 and better else []


def majority_miou(labels: np.ndarray) -> float:
    """MIoU in percent of predicting the commonest class everywhere; ``labels`` are pixel counts."""
    occurring = labels[labels > 0]
    if not occurring.size:
        return 0.0
    return float(100 * occurring.max() / occurring.sum() / occurring.size)
