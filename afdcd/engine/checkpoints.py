"""The checkpoints of a run: which there are, which is the last, and what they hold.

File names and keys are Detectron2's: ``model_0000399.pth``, ``model_final.pth``, and the text file
``last_checkpoint`` that names the newest. ``model`` is exactly the student (or the plain model).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from afdcd.distill import Distiller
from afdcd.models.weights import CheckpointError, read_checkpoint
from afdcd.utils.files import remove_unfinished, save_tensors, write_text

logger = logging.getLogger(__name__)

FINAL = "model_final.pth"
BEST = "model_best.pth"
EXPORT = "student_final.pth"
_POINTER = "last_checkpoint"


def student_of(model: nn.Module) -> nn.Module:
    """The network that is trained for use: a distiller's student, or the model itself."""
    return model.student if isinstance(model, Distiller) else model


class ResultWeights(NamedTuple):
    """The checkpoint that evaluation and prediction load.

    Attributes:
        path: empty where there is none.
        key: the flag or setting that names it.
        reason: why this one, to stand in brackets.
    """

    path: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"Weights: {self.path} ({self.reason})"


def result_weights(cfg: Any, *, named: bool) -> ResultWeights:
    """What evaluation and prediction load.

    What the command line names comes first, then the run's own result in ``OUTPUT_DIR``
    (``model_final.pth``, or ``model_best.pth``), then the config file's ``MODEL.WEIGHTS``: that is
    what training starts from, in most configs a backbone alone.

    Args:
        cfg: the run's.
        named: whether ``MODEL.WEIGHTS`` stands on the command line.
    """
    key, weights, folder = "MODEL.WEIGHTS", str(cfg.MODEL.WEIGHTS), Path(cfg.OUTPUT_DIR)
    if named and weights:
        return ResultWeights(weights, key, f"{key} on the command line")
    for name in (FINAL, BEST):
        if (folder / name).is_file():
            return ResultWeights(str(folder / name), "OUTPUT_DIR", "the run's own result")
    none = f"OUTPUT_DIR {folder} holds no {FINAL} or {BEST}"
    return ResultWeights(weights, key, f"{key} of the config file; {none}" if weights else none)


class Checkpoints:
    """The checkpoint files in a run's folder.

    Args:
        folder: ``OUTPUT_DIR``.
        kept: how many numbered checkpoints to keep.
    """

    def __init__(self, folder: Path, *, kept: int = 2) -> None:
        self.folder = folder
        self.kept = max(kept, 1)

    def last(self) -> Path | None:
        """The newest checkpoint, or None where there is none.

        That which ``last_checkpoint`` names; where this file is lost, or names one that is, the
        final checkpoint, or the numbered one of the latest iteration.
        """
        named = self._named()
        if named is not None and named.is_file():
            return named
        final = self.folder / FINAL
        there = [final] if final.is_file() else self._numbered()[-1:]
        return there[0] if there else named

    def results(self) -> list[Path]:
        """The files of a run that a new one would overwrite."""
        names = [FINAL, BEST, EXPORT]
        found = [path for path in (self.folder / name for name in names) if path.is_file()]
        return [*self._numbered(), *found]

    def read_last(self) -> dict[str, Any]:
        """The content of the newest checkpoint.

        Raises:
            CheckpointError: there is none, or the last one is missing or can't be read; the message
                names older ones.
        """
        path = self.last()
        if path is None:
            raise CheckpointError(f"{self.folder} holds no checkpoint to resume from")
        named = self._named()
        if not path.is_file():
            raise CheckpointError(
                f"{self.folder / _POINTER} names {path.name}, but no checkpoint is there: "
                "put it back, or train anew without --resume"
            )
        if path != named:
            logger.warning(
                "%s %s: taking %s for the last checkpoint",
                self.folder / _POINTER,
                "is missing" if named is None else f"names {named.name}, which is missing",
                path.name,
            )
        try:
            content = read_checkpoint(path)
        except CheckpointError as error:
            older = [p.name for p in self._numbered() if p != path]
            raise CheckpointError(
                f"{error}. "
                + (
                    f"An older checkpoint is there: write {older[-1]} into "
                    f"{self.folder / _POINTER} to resume from it"
                    if older
                    else "There is no older one in its folder"
                )
            ) from error
        wanted = ("model", "optimizer", "iteration", "seed", "progress")
        if missing := [key for key in wanted if key not in content]:
            raise CheckpointError(
                f"{path} can't be resumed from: it has no {', '.join(missing)}. Weights alone are "
                "taken by MODEL.WEIGHTS, without --resume"
            )
        return content

    def save(self, content: dict[str, Any], *, final: bool = False) -> Path:
        """Write a checkpoint, point to it, then delete numbered ones beyond ``kept``."""
        name = FINAL if final else f"model_{content['iteration']:07d}.pth"
        path = self.folder / name
        save_tensors(path, content)
        write_text(self.folder / _POINTER, name)
        remove_unfinished(self.folder)
        numbered = self._numbered()
        for old in numbered[: -self.kept]:
            old.unlink(missing_ok=True)
        return path

    def save_weights(self, name: str, model: nn.Module) -> Path:
        """Write the student alone, as ``{"model": ...}``."""
        path = self.folder / name
        save_tensors(path, {"model": student_of(model).state_dict()})
        return path

    def _named(self) -> Path | None:
        """What ``last_checkpoint`` names, whether it is there or not."""
        pointer = self.folder / _POINTER
        if not pointer.is_file():
            return None
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        return self.folder / Path(name).name if name else None

    def _numbered(self) -> list[Path]:
        return sorted(
            p for p in self.folder.glob("model_*.pth") if re.fullmatch(r"model_\d+\.pth", p.name)
        )
