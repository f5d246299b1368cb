"""Weights from other codebases' checkpoints."""

from afdcd.models.weights.load import BACKBONE_ALONE, LoadReport, load_weights
from afdcd.models.weights.read import (
    CheckpointError,
    file_problem,
    is_address,
    model_entries,
    read_checkpoint,
)

__all__ = [
    "BACKBONE_ALONE",
    "CheckpointError",
    "LoadReport",
    "file_problem",
    "is_address",
    "load_weights",
    "model_entries",
    "read_checkpoint",
]
