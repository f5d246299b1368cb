"""The frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from afdcd.distill.averaging import averaged_logits, to_grid
from afdcd.distill.folding import fold_norms
from afdcd.distill.grids import corners_on_corners, resampled
from afdcd.distill.taps import FeatureTaps
from afdcd.distill.targets import is_logits
from afdcd.utils.memory_format import format_module
from afdcd.utils.sample_keys import TEACHER_IMAGE


class FrozenTeacher:
    """A model that only ever gives features: always in evaluation mode, without gradients.

    It is deliberately not an ``nn.Module``: when it is an attribute of one, its weights stay out of
    ``state_dict()``, ``parameters()``, the optimizer and DistributedDataParallel, and ``train()``
    doesn't reach it. The owner passes on ``.to()`` and the like by calling `apply`.

    Args:
        model: in Detectron2's protocol; put into evaluation mode, its parameters frozen.
        flip_channels: give it the images' channels in reverse (a teacher trained on RGB with a
            student trained on BGR).
        dtype: of its convolutions: float32, bfloat16 or float16; None for autocast's where autocast
            is on, else as they are.
        prepare: at the first call of `features`, fold its normalization into its convolutions and
            put their weights into ``dtype`` and the device's memory format, all in place: a copy
            would double the teacher's memory. Score or save it before. In float32 the features
            stay the same except for rounding (1e-5 of the largest value); in bfloat16 they are
            within about 2 % (relative L2), in float16 0.3 %. Nothing changes the weights later. Not
            of models that say ``KEEPS_WEIGHTS``, whose code may rely on them.
        scales, flip: over which its logits are averaged: see `averaged_logits`.
        others: teachers of the same classes, whose logits are averaged with its own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        flip_channels: bool = False,
        dtype: torch.dtype | None = None,
        prepare: bool = True,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        others: Sequence[FrozenTeacher] = (),
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.flip_channels = flip_channels
        self.dtype = dtype
        self.scales, self.flip, self.others = tuple(scales), flip, tuple(others)
        self._unprepared = prepare and not getattr(model, "KEEPS_WEIGHTS", False)

    def features(
        self, batched_inputs: list[dict[str, Any]], paths: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """The feature maps at ``paths``; nothing after the last of them is computed.

        Where samples hold an image of the teacher's own resolution (``teacher_image``), it sees
        that one, and its maps are averaged down to the grid of the student's. Its logits stay as
        they are: losses bring both networks' to the finer grid (`afdcd.distill.grids`).

        Args:
            batched_inputs: as the student's.
            paths: dotted module paths.

        Raises:
            TapError: see `FeatureTaps`.
        """
        inputs = [
            {**item, "image": item[TEACHER_IMAGE]} if TEACHER_IMAGE in item else item
            for item in batched_inputs
        ]
        averaged = [path for path in paths if is_logits(path)] if self._averages else []
        plain = [path for path in paths if path not in averaged]
        maps = self._maps(inputs, plain) if plain else {}
        maps |= {path: self._averaged(inputs, path) for path in averaged}
        if inputs and TEACHER_IMAGE in inputs[0]:
            sizes = _size(inputs[0]["image"]), _size(batched_inputs[0]["image"])
            maps = {
                path: features if is_logits(path) else to_grid(features, *sizes)
                for path, features in maps.items()
            }
        return maps

    @property
    def _averages(self) -> bool:
        return self.flip or self.scales != (1.0,) or bool(self.others)

    def _averaged(self, inputs: list[dict[str, Any]], path: str) -> torch.Tensor:
        found = []
        for teacher in (self, *self.others):
            corners = corners_on_corners(teacher.model)
            logits = averaged_logits(
                partial(teacher._map, path),
                inputs,
                scales=self.scales,
                flip=self.flip,
                align_corners=corners,
            )
            found.append((logits, corners))
        first, corners = found[0]
        size = (first.shape[-2], first.shape[-1])
        return torch.stack([resampled(x, size, was, corners) for x, was in found]).mean(0)

    def _map(self, path: str, inputs: list[dict[str, Any]]) -> torch.Tensor:
        return self._maps(inputs, [path])[path]

    def _maps(
        self, batched_inputs: list[dict[str, Any]], paths: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """The maps at ``paths`` of the samples' images."""
        inputs = batched_inputs
        if self.flip_channels:
            inputs = [{**item, "image": item["image"].flip(0)} for item in batched_inputs]
        device = next(self.model.parameters()).device
        dtype = self.dtype
        if dtype is None and torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        if self._unprepared:
            self._prepare(dtype)
        precision: AbstractContextManager[Any] = nullcontext()
        if dtype is not None:
            low = dtype in (torch.bfloat16, torch.float16)
            precision = torch.autocast(device.type, dtype=dtype if low else None, enabled=low)
        # no_grad rather than inference_mode: the losses save these tensors for backward.
        with (
            torch.no_grad(),
            precision,
            FeatureTaps(self.model, paths, stop_early=True, whose="the teacher") as taps,
        ):
            self.model(inputs)
        return {path: taps[path] for path in paths}

    def _prepare(self, dtype: torch.dtype | None) -> None:
        fold_norms(self.model)
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):
                # Autocast would cast them again in every step.
                format_module(module.to(dtype=dtype))
        self._unprepared = False

    def apply(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Move or cast the weights, as ``nn.Module._apply`` does."""
        self.model._apply(fn)
        for other in self.others:
            other.apply(fn)


def _size(image: torch.Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]
