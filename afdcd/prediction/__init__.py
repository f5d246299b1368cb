"""Predictions of a trained network, as files."""

from afdcd.prediction.inputs import batches_of, find_inputs
from afdcd.prediction.predictor import Predictor
from afdcd.prediction.video import predict_video
from afdcd.prediction.writing import Style, write_prediction

__all__ = [
    "Predictor",
    "Style",
    "batches_of",
    "find_inputs",
    "predict_video",
    "write_prediction",
]
