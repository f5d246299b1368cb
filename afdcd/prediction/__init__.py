"""Predictions of a trained network, as files."""

from afdcd.prediction.inputs import Input, batches_of, find_inputs, output_problems
from afdcd.prediction.predictor import Predictor
from afdcd.prediction.video import predict_video

__all__ = [
    "Input",
    "Predictor",
    "batches_of",
    "find_inputs",
    "output_problems",
    "predict_video",
]
