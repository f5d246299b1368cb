"""Models of torch.jit.save."""

from __future__ import annotations

import torch
from torch import nn

from afdcd.models.adapters.program import ProgramAdapter
from afdcd.models.adapters.registry import ADAPTERS


@ADAPTERS.register("torchscript")
class TorchScriptAdapter(ProgramAdapter):
    """A TorchScript archive, traced or scripted. It has no inner taps: hooks don't reach inside."""

    @classmethod
    def read(cls, path: str, device: torch.device) -> nn.Module:
        return torch.jit.load(path, map_location=device)
