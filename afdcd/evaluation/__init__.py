"""Predictions and their scores."""

from afdcd.evaluation.boundary import BoundaryIoU
from afdcd.evaluation.confusion import ConfusionMatrix
from afdcd.evaluation.evaluator import SegmentationEvaluator
from afdcd.evaluation.multiscale import multiscale_logits
from afdcd.evaluation.panoptic import PanopticQuality
from afdcd.evaluation.predict import predict
from afdcd.evaluation.sliding import window_logits

__all__ = [
    "BoundaryIoU",
    "ConfusionMatrix",
    "PanopticQuality",
    "SegmentationEvaluator",
    "multiscale_logits",
    "predict",
    "window_logits",
]
