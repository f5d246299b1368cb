"""Weights for Detectron2's models and ours: all of them, or an ImageNet backbone, never silence."""

from __future__ import annotations

import logging
from pickle import UnpicklingError
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from afdcd.models import Head, load_weights
from afdcd.models.weights import CheckpointError

logger = logging.getLogger(__name__)


class _ReportingCheckpointer(DetectionCheckpointer):
    """Keeps what Detectron2 only logs."""

    incompatible: Any = None

    def _load_model(self, checkpoint: Any) -> Any:
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


def load_model_weights(model: nn.Module, path: str, *, complete: bool) -> None:
    """Load a checkpoint into a model.

    This package's networks take everything that `load_weights` recognises; other models whatever
    Detectron2's checkpointer does, its model zoo among them.

    Args:
        model: not wrapped.
        path: a file, or one of Detectron2's URLs.
        complete: whether every entry of the model must be set (a teacher, an evaluation), rather
            than a part such as an ImageNet backbone.

    Raises:
        CheckpointError: the file can't be read, or doesn't fit, or sets nothing.
    """
    if isinstance(getattr(model, "sem_seg_head", None), Head):
        try:
            local = DetectionCheckpointer(model).path_manager.get_local_path(path)
        except (OSError, RuntimeError, AssertionError) as error:
            raise CheckpointError(f"{path} can't be fetched: {error}") from error
        logger.info(load_weights(model, local, part="model" if complete else "auto"))
        return
    checkpointer = _ReportingCheckpointer(model)
    try:
        checkpointer.load(path)
    except (UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"{path} can't be read as a checkpoint: it is truncated, corrupt, or holds more than "
            "tensors"
        ) from error
    except (AssertionError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} can't be loaded: {str(error)[:500]}") from error
    found = checkpointer.incompatible
    problems = [f"{name} is {tuple(a)}, the model's {tuple(b)}" for name, a, b in _shapes(found)]
    problems += [f"{name} is missing" for name in found.missing_keys]
    entries = len(model.state_dict())
    if len(problems) >= entries:
        raise CheckpointError(f"{path} sets nothing of the model: is it another model's?")
    if complete and problems:
        raise CheckpointError(
            f"{path} doesn't fit the model: {len(problems)} of {entries} entries are not set: "
            f"{'; '.join(problems[:5])}"
        )


def _shapes(found: Any) -> list[tuple[str, Any, Any]]:
    return list(found.incorrect_shapes)
