"""What ResNets and MobileNets have in common: a stem and the stages res2 to res5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from afdcd.models.backbones.registry import Backbone
from afdcd.models.layers import ShapeSpec, stage_dilations

STAGES = ("res2", "res3", "res4", "res5")


class StagedBackbone(Backbone):
    """A stem of stride 4 (or 2, if res2 has the other 2), then res2, res3, res4 and res5.

    Subclasses set ``stem`` and the stages as submodules, then call `finish`.
    """

    stem: nn.Module
    _frozen: tuple[str, ...] = ()

    def finish(
        self, channels: dict[str, int], *, output_stride: int, out_features: Sequence[str]
    ) -> None:
        """Fix the outputs.

        Args:
            channels: of each stage, and of what else `forward` can return: ``res3.0`` is a part of
                ``res3``.
            output_stride: of res5.
            out_features: the names that `forward` returns.

        Raises:
            ValueError: ``out_features`` is empty or has other names.
        """
        unknown = [name for name in out_features if name not in channels]
        if unknown or not out_features:
            raise ValueError(
                f"out_features takes some of {', '.join(channels)}; got {list(out_features)}"
            )
        stride, strides = 4, {}
        for stage, (stage_stride, _, _) in stage_dilations(output_stride).items():
            stride *= stage_stride
            strides[stage] = stride
        self.out_features = tuple(out_features)
        self._shapes = {
            name: ShapeSpec(channels=channels[name], stride=strides[_stage_of(name)])
            for name in out_features
        }
        self._last = max(map(_stage_of, out_features), key=STAGES.index)

    def freeze(self, at: int) -> None:
        """Keep the first parts as they are: 1 the stem, 2 res2 as well, up to 5 for all.

        Their weights get no gradients, and their normalizations use the statistics of the loaded
        weights, as Detectron2's ``FREEZE_AT`` and ``FrozenBatchNorm2d`` have it.

        Raises:
            ValueError: ``at`` isn't from 0 to 5.
        """
        parts = ("stem", *STAGES)
        if not 0 <= at <= len(parts):
            raise ValueError(f"MODEL.BACKBONE.FREEZE_AT must be from 0 to {len(parts)}; got {at}")
        self._frozen = parts[:at]
        for part in self._frozen:
            getattr(self, part).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> StagedBackbone:
        """As of any module, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            getattr(self, part).train(False)
        return self

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        return dict(self._shapes)

    def feature_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[N, 3, H, W] to ``{stage: [N, C, (H - 1) // stride + 1, (W - 1) // stride + 1]}``."""
        maps: dict[str, torch.Tensor] = {}
        x = self.stem(x)
        for stage in STAGES:
            x = self.run_stage(stage, x, maps)
            if stage in self.out_features:
                maps[stage] = x
            if stage == self._last:
                break
        return maps

    def run_stage(self, stage: str, x: torch.Tensor, maps: dict[str, torch.Tensor]) -> torch.Tensor:
        """A stage's output; what is returned of its parts is added to ``maps``."""
        return getattr(self, stage)(x)


def _stage_of(name: str) -> str:
    return name.partition(".")[0]
