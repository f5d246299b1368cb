"""Scoring of predictions."""

from afdcd.evaluation.boundary import BoundaryIoU
from afdcd.evaluation.confusion import ConfusionMatrix
from afdcd.evaluation.evaluator import SegmentationEvaluator
from afdcd.evaluation.multiscale import multiscale_logits

__all__ = ["BoundaryIoU", "ConfusionMatrix", "SegmentationEvaluator", "multiscale_logits"]
