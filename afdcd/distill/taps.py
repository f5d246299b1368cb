"""Feature maps from inside a model, by module path."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from afdcd.distill.tokens import TokenError, TokenGrids
from afdcd.utils.memory_format import in_device_format


class TapError(ValueError):
    """A tap's path doesn't exist, or its module doesn't give one feature map per forward."""


class AllTapsFired(Exception):
    """Raised inside a model's forward once all taps have fired."""


def find_module(model: nn.Module, path: str, whose: str = "the model") -> nn.Module:
    """The module at a dotted path, such as ``backbone.res5``.

    Raises:
        TapError: there is none; the message lists the nearest existing paths.
    """
    modules = dict(model.named_modules())
    if path in modules and path:
        return modules[path]
    parent, _, last = path.rpartition(".")
    while parent and parent not in modules:
        parent, _, last = parent.rpartition(".")
    children = [name for name, _ in modules[parent].named_children()]
    near = difflib.get_close_matches(path, [name for name in modules if name], n=3, cutoff=0.5)
    holder = f"{parent!r}" if parent else "the model"
    held = ", ".join(children[:20]) or "no modules"
    raise TapError(
        f"{whose} has no module {path!r}: {holder} holds {held}, not {last!r}"
        + (f"; did you mean {', '.join(near)}?" if near else "")
    )


class _Tap:
    """A forward hook that keeps its module's output. An object, so that it can be deep-copied."""

    def __init__(self, taps: FeatureTaps, path: str) -> None:
        self.taps, self.path = taps, path

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.taps.receive(self.path, output)


class FeatureTaps:
    """Collects the outputs of modules during one forward.

    ::

        with FeatureTaps(model, ["backbone.res5"]) as taps:
            model(batched_inputs)
        features = taps["backbone.res5"]

    The hooks live only inside the ``with`` block. Tokens [N, L, C], such as a transformer block's,
    and maps [N, H, W, C] become [N, C, H, W] by the rules of `afdcd.distill.tokens.TokenGrids`.

    Args:
        model: any module.
        paths: dotted module paths; a path may be named twice.
        stop_early: leave the model's forward (by `AllTapsFired`, which the ``with`` block catches)
            as soon as all taps have fired, so that the rest isn't computed.
        whose: the model's title, for errors.

    Raises:
        TapError: at construction for a path that doesn't exist; inside the block for an output
            that is neither one [N, C, H, W] tensor nor tokens [N, L, C] of a known grid, or a
            module that runs twice in one forward; at the block's end for a module that didn't run.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        *,
        stop_early: bool = False,
        whose: str = "the model",
    ) -> None:
        self._modules = {path: find_module(model, path, whose) for path in paths}
        self._grids = TokenGrids(model, self._modules)
        self._stop_early = stop_early
        self._whose = whose
        self._handles: list[RemovableHandle] = []
        self._features: dict[str, torch.Tensor] = {}
        self._versions: dict[str, int] = {}
        self._of_tokens: set[str] = set()

    def __enter__(self) -> FeatureTaps:
        self._features, self._versions = {}, {}
        self._handles = self._grids.watch()
        self._handles += [
            module.register_forward_hook(_Tap(self, path)) for path, module in self._modules.items()
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        stopped = self._stop_early and isinstance(error, AllTapsFired)
        if error is None and (uncalled := [p for p in self._modules if p not in self._features]):
            raise TapError(
                f"{self._whose} ran without calling {', '.join(uncalled)}: such a module (for "
                "example a container) has no output of its own; tap one inside or after it"
            )
        return stopped

    def __getitem__(self, path: str) -> torch.Tensor:
        """The feature map [N, C, H, W] of a path.

        Raises:
            TapError: an in-place operation later in the model has overwritten it.
        """
        features = self._features[path]
        if features._version != self._versions[path]:
            raise TapError(
                f"{self._whose} overwrites the output of {path!r} in place after the tap: tap the "
                "module that does so, or one after it"
            )
        return in_device_format(features) if path in self._of_tokens else features

    def receive(self, path: str, output: Any) -> None:
        """Take a module's output. Called by the hooks."""
        if isinstance(output, torch.Tensor) and output.dim() == 3:
            try:
                output = self._grids.to_map(path, output)
            except TokenError as error:
                raise TapError(f"{self._whose}: {error}") from error
            self._of_tokens.add(path)
        elif isinstance(output, torch.Tensor) and output.dim() == 4:
            first = self._grids.channels_first(path, output)
            if first is not output:
                self._of_tokens.add(path)
            output = first
        if not isinstance(output, torch.Tensor) or output.dim() != 4:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
            what = f"a tensor of shape {shape}" if shape is not None else type(output).__name__
            raise TapError(
                f"{self._whose}: {path!r} gives {what}, but a tap takes one feature map "
                "[N, C, H, W] or tokens [N, L, C]: tap a module inside it"
            )
        if path in self._features:
            raise TapError(
                f"{self._whose} calls {path!r} several times in one forward: tap a module that "
                "runs once"
            )
        self._features[path] = output
        self._versions[path] = output._version
        if self._stop_early and len(self._features) == len(self._modules):
            raise AllTapsFired
