"""The SegFormer head: layers on single positions of several stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.heads.registry import HEADS
from afdcd.models.heads.segmentation_head import SegmentationHead
from afdcd.models.layers import ConvNorm, Norm, ShapeSpec


def enlarge(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize [N, C, h, w] bilinearly, edges on edges, as the published SegFormer does."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class StageMLP(nn.Module):
    """A conv1x1 for each stage, all resized to the finest and concatenated, the last stage first.

    Args:
        in_channels: of each stage's map, by name.
        finest: the stage whose size all take.
        channels: D of each projection.
        norm: of each projection, which is then followed by ReLU, as in mmsegmentation; None for a
            plain projection with a bias, as published.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        *,
        finest: str,
        channels: int,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.finest = finest
        for name, width in in_channels.items():
            projection = (
                nn.Conv2d(width, channels, 1)
                if norm is None
                else ConvNorm(width, channels, 1, norm=norm)
            )
            self.add_module(name, projection)

    def forward(self, maps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Maps by stage to [N, stages * D, h, w] of the finest stage's h and w."""
        size = (maps[self.finest].shape[-2], maps[self.finest].shape[-1])
        projected = [enlarge(layer(maps[name]), size) for name, layer in self.named_children()]
        return torch.cat(projected[::-1], dim=1)


@HEADS.register("MLPHead")
class MLPHead(SegmentationHead):
    """SegFormer's all-MLP head (arXiv 2105.15203, section 3.2), on the stages of any backbone.

    Logits have the size of the finest stage. They are resized with ``align_corners=False``, also
    for the loss, unlike those of the package's other heads.

    Args:
        input_shape: the backbone's ``output_shape()``.
        in_features: the stages, from the finest to the coarsest.
        num_classes: K.
        hidden_channels: of each stage's projection and of the fusing conv1x1: 256 for the
            published B0 and B1, 768 for B2 to B5.
        mlp_norm: whether ``norm`` and ReLU follow each stage's projection, as in mmsegmentation.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
        **head: see `SegmentationHead`.
    """

    ALIGN_CORNERS: ClassVar[bool] = False

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str],
        num_classes: int,
        hidden_channels: int = 256,
        mlp_norm: bool = False,
        norm: Norm = "BN",
        **head: Any,
    ) -> None:
        if missing := [name for name in in_features if name not in input_shape]:
            raise ValueError(
                f"the head needs the backbone outputs {', '.join(missing)}, but the backbone "
                f"returns {', '.join(input_shape)}: add them to OUT_FEATURES (out_features)"
            )
        finest = min(in_features, key=lambda name: input_shape[name].stride or 1)
        super().__init__(
            input_shape,
            in_features=finest,
            num_classes=num_classes,
            context_channels=len(in_features) * hidden_channels,
            hidden_channels=hidden_channels,
            fuse_size=1,
            norm=norm,
            **head,
        )
        self.mlp = StageMLP(
            {name: input_shape[name].channels for name in in_features},
            finest=finest,
            channels=hidden_channels,
            norm=norm if mlp_norm else None,
        )

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        return super().from_config(cfg, input_shape) | {"mlp_norm": cfg.MODEL.SEM_SEG_HEAD.MLP_NORM}

    @classmethod
    def read_in_features(cls, names: Sequence[str]) -> Sequence[str]:
        return tuple(names)

    def layers(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [N, K, h, w] at the finest stage's size."""
        return self.predictor(self.dropout(self.fuse(self.mlp(features))))

    def resize(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return enlarge(logits, size)

    def loss_of(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # At the targets' size already: the loss would put corners on corners.
        output = output if output.dtype == torch.float64 else output.float()
        return super().loss_of(enlarge(output, (targets.shape[-2], targets.shape[-1])), targets)
