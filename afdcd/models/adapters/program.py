"""Programs: networks in files with their code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afdcd.models.adapters.adapter import Adapter
from afdcd.models.adapters.source import Source
from afdcd.models.weights.read import CheckpointError, file_problem


class ProgramAdapter(Adapter):
    """A file that holds a network with its code; loading it may run code, as a pickle may.

    It is never moved or cast, but loaded anew on the device that its adapter is moved to, since
    programs may name devices in their code. It runs in its own precision: autocast is off in it.
    """

    @classmethod
    def problems(cls, source: Source) -> list[str]:
        problems = [f"{source.name}: {text}" for text in [file_problem(source.place)] if text]
        if source.weights:
            problems.append(
                f"MODEL.DISTILLER.TEACHER.WEIGHTS {source.weights}: {source.name} holds its own "
                "weights; leave it empty"
            )
        return problems

    @classmethod
    def files(cls, source: Source) -> list[Path]:
        return [Path(source.place)]

    @classmethod
    def load(cls, source: Source) -> ProgramAdapter:
        return cls(source, cls._guarded(source, torch.device("cpu")), cls.image_defaults(source))

    def __init__(self, source: Source, *arguments: Any) -> None:
        super().__init__(source, *arguments)
        self._source = source
        self._loaded_on = self.device

    @classmethod
    @abstractmethod
    def read(cls, path: str, device: torch.device) -> nn.Module:
        """The program on a device. Raises anything that the file makes PyTorch raise."""

    @classmethod
    def _guarded(cls, source: Source, device: torch.device) -> nn.Module:
        try:
            return cls.read(source.place, device)
        # Damaged files, and programs of other versions, make the readers raise anything.
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"{source.name} can't be loaded ({type(error).__name__}: {reason}): is it of "
                f"PyTorch {torch.__version__.partition('+')[0]}, and whole?"
            ) from error

    def outputs(self, images: torch.Tensor) -> Any:
        with torch.autocast(images.device.type, enabled=False):
            return self.model(images.to(self._dtype()))

    def _dtype(self) -> torch.dtype:
        kinds = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(kinds, torch.float32)

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> ProgramAdapter:
        super()._apply(fn, recurse=False)
        if self.device != self._loaded_on:
            self._loaded_on = self.device
            self.model = self._guarded(self._source, self.device)
            self.model.eval().requires_grad_(False)
        return self
