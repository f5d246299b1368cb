"""The frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

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
    """

    def __init__(self, model: nn.Module, *, flip_channels: bool = False) -> None:
        self.model = model.eval().requires_grad_(False)
        self.flip_channels = flip_channels

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
        # no_grad rather than inference_mode: the losses save these tensors for backward.
        with (
            torch.no_grad(),
            FeatureTaps(self.model, paths, stop_early=True, whose="the teacher") as taps,
        ):
            self.model(inputs)
        return {path: taps[path] for path in paths}

    def apply(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Move or cast the weights, as ``nn.Module._apply`` does."""
        self.model._apply(fn)
