"""Predictions of a trained network, as files."""

from afdcd.prediction.inputs import batches_of, find_inputs
from afdcd.prediction.predictor import Predictor
from afdcd.prediction.video import predict_video

__all__ = [
    "Predictor",
    "batches_of",
    "find_inputs",
    "predict_video",
]
