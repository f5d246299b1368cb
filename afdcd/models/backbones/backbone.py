"""What the backbones have in common: a stem and the stages res2 to res5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from afdcd.models.layers import FeatureMaps, ShapeSpec, stage_dilations

STAGES = ("res2", "res3", "res4", "res5")


class StagedBackbone(nn.Module):
    """A stem of stride 4 (or 2, if res2 has the other 2), then res2, res3, res4 and res5.

    Subclasses set ``stem`` and the stages as submodules, then call `finish`.
    """

    stem: nn.Module

    # As in ``detectron2.modeling.Backbone``: inputs need no padding to a multiple of anything.
    size_divisibility = 0
    padding_constraints: ClassVar[dict[str, int]] = {}

    def finish(
        self, channels: dict[str, int], *, output_stride: int, out_features: Sequence[str]
    ) -> None:
        """Fix the outputs.

        Args:
            channels: channels of each stage.
            output_stride: of res5.
            out_features: the stages that `forward` returns.

        Raises:
            ValueError: ``out_features`` is empty or names something that is no stage.
        """
        unknown = [name for name in out_features if name not in STAGES]
        if unknown or not out_features:
            raise ValueError(
                f"out_features takes some of {', '.join(STAGES)}; got {list(out_features)}"
            )
        stride, shapes = 4, {}
        for stage, (stage_stride, _, _) in stage_dilations(output_stride).items():
            stride *= stage_stride
            shapes[stage] = ShapeSpec(channels=channels[stage], stride=stride)
        self.out_features = tuple(out_features)
        self._shapes = {name: shapes[name] for name in out_features}
        self._last = max(out_features, key=STAGES.index)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return dict(self._shapes)

    def forward(self, x: torch.Tensor) -> FeatureMaps:
        """[N, 3, H, W] to ``{stage: [N, C, (H - 1) // stride + 1, (W - 1) // stride + 1]}``."""
        height, width = x.shape[-2:]
        maps = {}
        x = self.stem(x)
        for stage in STAGES:
            x = getattr(self, stage)(x)
            if stage in self.out_features:
                maps[stage] = x
            if stage == self._last:
                break
        return FeatureMaps(maps, image_size=(height, width))
