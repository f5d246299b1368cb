"""The frozen teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from afdcd.distill.compiling import compile_between_taps
from afdcd.distill.folding import fold_norms
from afdcd.distill.taps import FeatureTaps


class FrozenTeacher:
    """A model that only ever gives features: always in evaluation mode, without gradients.

    It is deliberately no ``nn.Module``: kept as an attribute of one, its weights stay out of
    ``state_dict()``, ``parameters()``, the optimizer and DistributedDataParallel, and ``train()``
    doesn't reach it. The owner passes ``.to()`` and the like on by calling `apply`.

    Args:
        model: in Detectron2's protocol; put into evaluation mode, its parameters frozen.
        flip_channels: give it the images' channels in reverse (a teacher trained on RGB beside a
            student trained on BGR).
        dtype: of its convolutions: float32, bfloat16 or float16; None for autocast's where autocast
            is on, else as they are.
        prepare: compute features with a copy of the model, made at the first call of `features`:
            its normalization folded into its convolutions, their weights in ``channels_last``
            format and in ``dtype``. ``model`` itself is never changed. In float32 the features stay
            the same but for rounding (1e-5 of the largest value); in bfloat16 they are within about
            2 % (relative L2), in float16 0.3 %.
        compiled: run the copy's modules through torch.compile as well, those with a tap inside
            apart (see `compile_between_taps`); takes ``prepare``.

    Attributes:
        model: as it was given.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        flip_channels: bool = False,
        dtype: torch.dtype | None = None,
        prepare: bool = True,
        compiled: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.flip_channels = flip_channels
        self.dtype = dtype
        self._wanted = prepare
        self._prepared: nn.Module | None = None
        self.compiled = compiled

    def features(
        self, batched_inputs: list[dict[str, Any]], paths: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """The feature maps at ``paths``; nothing after the last of them is computed.

        Args:
            batched_inputs: as the student's.
            paths: dotted module paths.

        Raises:
            TapError: see `FeatureTaps`.
        """
        inputs = batched_inputs
        if self.flip_channels:
            inputs = [{**item, "image": item["image"].flip(0)} for item in batched_inputs]
        device = next(self.model.parameters()).device
        dtype = self.dtype
        if dtype is None and torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        model = self._prepare(dtype, paths) if self._wanted else self.model
        precision: AbstractContextManager[Any] = nullcontext()
        if dtype is not None:
            low = dtype in (torch.bfloat16, torch.float16)
            precision = torch.autocast(device.type, dtype=dtype if low else None, enabled=low)
        # no_grad rather than inference_mode: the losses save these tensors for backward.
        with (
            torch.no_grad(),
            precision,
            FeatureTaps(model, paths, stop_early=True, whose="the teacher") as taps,
        ):
            model(inputs)
        return {path: taps[path] for path in paths}

    def _prepare(self, dtype: torch.dtype | None, paths: Sequence[str]) -> nn.Module:
        """The copy that features are computed with."""
        if self._prepared is None:
            # A copy, since the teacher stays what it was: its weights are nobody's to change, and
            # it may be scored or saved at any time. It costs their memory a second time.
            self._prepared = copy.deepcopy(self.model)
            fold_norms(self._prepared)
            for module in self._prepared.modules():
                if isinstance(module, nn.Conv2d):
                    # Autocast would cast them anew in every step.
                    module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.compiled:
                compile_between_taps(self._prepared, paths)
        return self._prepared

    def apply(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Move or cast the weights, as ``nn.Module._apply`` does."""
        self.model._apply(fn)
        # The copy is made again, where the weights are then.
        self._prepared = None
