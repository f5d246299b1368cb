"""Weights for Detectron2's models and ours: all of them, or an ImageNet backbone, never silence."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from afdcd.models import Backbone, Head, load_weights
from afdcd.models.weights import (
    BACKBONE_ALONE,
    CheckpointError,
    is_address,
    model_entries,
    read_checkpoint,
)

logger = logging.getLogger(__name__)

# What Detectron2's model zoo says beside the entries about their names.
_ZOO_KEYS = ("__author__", "matching_heuristics")


class _ReportingCheckpointer(DetectionCheckpointer):
    """Keeps what Detectron2 only logs, and reads files as `read_checkpoint` does.

    Detectron2 itself would run the code that is in a ``.pkl`` file.
    """

    incompatible: Any = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return _zoo_entries(read_checkpoint(filename), filename)
        if filename.endswith(".pyth"):
            return _by_heuristics(read_checkpoint(filename), filename, "pycls")
        return super()._load_file(filename)

    def _torch_load(self, f: str) -> dict[str, Any]:
        content = read_checkpoint(f)
        kept = {key: content[key] for key in _ZOO_KEYS if key in content}
        return {**kept, "model": dict(model_entries(content, f))}

    def _load_model(self, checkpoint: Any) -> Any:
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


def load_model_weights(model: nn.Module, path: str, *, complete: bool) -> None:
    """Load a checkpoint into a model.

    This package's networks take everything that `load_weights` recognises; other models whatever
    Detectron2's checkpointer does, its model zoo among them. Where a backbone of this package is
    under Detectron2's pyramid, a file without the pyramid may hold what `load_weights` recognises.

    Args:
        model: not wrapped.
        path: a file, or one of Detectron2's URLs.
        complete: whether every entry of the model must be set (a teacher, an evaluation), rather
            than a part such as an ImageNet backbone.

    Raises:
        CheckpointError: the file can't be read, or doesn't fit, or sets nothing.
    """
    checkpointer = _ReportingCheckpointer(model)
    local = _local_file(checkpointer, path)
    bottom_up = getattr(getattr(model, "backbone", None), "bottom_up", None)
    if isinstance(bottom_up, Backbone) and not complete and not _has_pyramid(local):
        holder = nn.ModuleDict({"backbone": bottom_up})
        logger.info(load_weights(holder, local, part="backbone"))
        return
    if isinstance(getattr(model, "sem_seg_head", None), Head):
        logger.info(load_weights(model, local, part="model" if complete else "auto"))
        return
    try:
        checkpointer.load(path)
    except CheckpointError:
        raise
    except (AssertionError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path} can't be loaded into {type(model).__name__}: is it another model's? "
            f"({type(error).__name__}: {reason})"
        ) from error
    found = checkpointer.incompatible
    problems = [f"{name} is {tuple(a)}, the model's {tuple(b)}" for name, a, b in _shapes(found)]
    problems += [f"{name} is missing" for name in found.missing_keys]
    entries = len(model.state_dict())
    if len(problems) >= entries:
        raise CheckpointError(f"{path} sets nothing of the model: is it another model's?")
    unset = {*found.missing_keys, *(name for name, _, _ in _shapes(found))}
    if complete and problems and _is_backbone(set(model.state_dict()) - unset):
        raise CheckpointError(f"{path} {BACKBONE_ALONE}")
    if complete and problems:
        raise CheckpointError(
            f"{path} doesn't fit the model: {len(problems)} of {entries} entries are not set: "
            f"{'; '.join(problems[:5])}"
        )


def _has_pyramid(path: str) -> bool:
    return any("bottom_up." in name for name in model_entries(read_checkpoint(path), path))


def _shapes(found: Any) -> list[tuple[str, Any, Any]]:
    return list(found.incorrect_shapes)


def _is_backbone(names: Iterable[str]) -> bool:
    """Whether there are weights of a backbone only; batch counters are never called missing."""
    return all(
        name.startswith(("backbone.", "pixel_")) or name.endswith("num_batches_tracked")
        for name in names
    )


def _zoo_entries(content: dict[str, Any], path: str) -> dict[str, Any]:
    """A ``.pkl`` file as Detectron2 takes it: of its own model zoo, or of Detectron's (Caffe2)."""
    if "model" in content and "__author__" in content:
        return content
    blobs = content["blobs"] if isinstance(content.get("blobs"), dict) else content
    return _by_heuristics(blobs, path, "Caffe2")


def _by_heuristics(content: dict[str, Any], path: str, author: str) -> dict[str, Any]:
    """The entries of another project's file, whose names Detectron2 matches by their ends."""
    entries = {
        name: value
        for name, value in model_entries(content, path).items()
        if not name.endswith(("_momentum", "num_batches_tracked"))
    }
    return {"model": entries, "__author__": author, "matching_heuristics": True}


def _local_file(checkpointer: DetectionCheckpointer, path: str) -> str:
    """The file of a path or of one of Detectron2's addresses, which is fetched."""
    if not is_address(path):
        return path
    address = path.split("?")[0]  # the rest is for the checkpointer
    try:
        local = checkpointer.path_manager.get_local_path(address)
    except (OSError, RuntimeError, AssertionError, ValueError) as error:
        raise CheckpointError(
            f"{path} can't be fetched ({type(error).__name__}): download it by other means, and "
            "name the file"
        ) from error
    return str(local)
