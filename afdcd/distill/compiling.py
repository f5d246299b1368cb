"""torch.compile for a model with taps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

# The backend of torch.compile; tests use a quick one.
BACKEND = "inductor"


def compile_between_taps(model: nn.Module, paths: Sequence[str]) -> list[str]:
    """Compile, in place, the largest modules that hold no tap inside them.

    A compiled function doesn't run hooks that are registered later. So not the model is compiled
    but the ``forward`` of its modules, around which their own hooks still run: a tap may be such a
    module itself, and leave the model early.

    Returns:
        the paths of the compiled modules.
    """
    compiled: list[str] = []

    def visit(module: nn.Module, path: str) -> None:
        inside = f"{path}." if path else ""
        if any(tap.startswith(inside) for tap in paths):
            for name, child in module.named_children():
                visit(child, f"{inside}{name}")
        elif any(True for _ in module.parameters()):
            module.forward = _Compiled(module.forward, path)
            compiled.append(path)

    visit(model, "")
    return compiled


class _Compiled:
    """A compiled function; where compiling fails, the function itself, with one warning."""

    def __init__(self, function: Callable[..., Any], path: str) -> None:
        self.function, self.path = function, path
        self.compiled: Callable[..., Any] | None = torch.compile(function, backend=BACKEND)

    def __call__(self, *args: Any) -> Any:
        if self.compiled is None:
            return self.function(*args)
        try:
            return self.compiled(*args)
        except Exception as error:  # a compiler may raise anything
            result = self.function(*args)  # an error of the function's own is raised here
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning(
                "torch.compile fails on %s (%s): continuing without it", self.path, reason[0]
            )
            self.compiled = None
            return result
