"""Weights from other codebases' checkpoints."""

from afdcd.models.weights.load import LoadReport, load_weights
from afdcd.models.weights.read import CheckpointError, model_entries, read_checkpoint

__all__ = ["CheckpointError", "LoadReport", "load_weights", "model_entries", "read_checkpoint"]
