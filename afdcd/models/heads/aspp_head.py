"""The DeepLabV3 head: atrous spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afdcd.models.heads.registry import HEADS
from afdcd.models.heads.segmentation_head import SegmentationHead, upsample
from afdcd.models.layers import ConvNorm, Norm, ShapeSpec, normalizes_batch


class ASPP(nn.Module):
    """conv1x1, three dilated conv3x3 and the image's mean, concatenated and projected.

    Args:
        in_channels: C of the input.
        channels: of each branch and of the output.
        dilations: of the three convolutions.
        dropout: after the projection.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        dilations: Sequence[int] = (12, 24, 36),
        dropout: float = 0.5,
        norm: Norm = "BN",
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvNorm(in_channels, channels, 1, norm=norm)])
        for dilation in dilations:
            self.convs.append(ConvNorm(in_channels, channels, 3, dilation=dilation, norm=norm))
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNorm(in_channels, channels, 1, norm=norm)
        )
        self.project = ConvNorm((len(dilations) + 2) * channels, channels, 1, norm=norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] to [N, channels, h, w]."""
        if x.shape[0] == 1 and normalizes_batch(self.pool):
            raise ValueError(
                "ASPP's image pooling normalizes over the batch, so training takes at least 2 "
                "images per GPU; got 1: raise SOLVER.IMS_PER_BATCH, or take fewer parts "
                "(SOLVER.ACCUMULATE)"
            )
        size = (x.shape[-2], x.shape[-1])
        branches = [conv(x) for conv in self.convs] + [upsample(self.pool(x), size)]
        return self.dropout(self.project(torch.cat(branches, dim=1)))


@HEADS.register("ASPPHead")
class ASPPHead(SegmentationHead):
    """DeepLabV3 (arXiv 1706.05587) as in the published networks.

    Unlike Detectron2's ``DeepLabV3Head`` it has a conv3x3 between ASPP and classifier, an
    auxiliary head, and resizes with ``align_corners=True``.

    Args:
        hidden_channels: of the branches of ASPP and of the fusing convolution: 256 for the
            published ResNet-101, 128 for the students.
        aspp_dilations: (12, 24, 36) at output stride 8.
        aspp_dropout: after ASPP's projection.
        **head: see `SegmentationHead`.
    """

    POOLS_IMAGES = True

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: str,
        num_classes: int,
        hidden_channels: int = 256,
        aspp_dilations: Sequence[int] = (12, 24, 36),
        aspp_dropout: float = 0.5,
        norm: Norm = "BN",
        **head: Any,
    ) -> None:
        super().__init__(
            input_shape,
            in_features=in_features,
            num_classes=num_classes,
            context_channels=hidden_channels,
            hidden_channels=hidden_channels,
            norm=norm,
            **head,
        )
        self.aspp = ASPP(
            input_shape[in_features].channels,
            hidden_channels,
            dilations=aspp_dilations,
            dropout=aspp_dropout,
            norm=norm,
        )

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return super().from_config(cfg, input_shape) | {
            "aspp_dilations": tuple(head.ASPP_DILATIONS),
            "aspp_dropout": head.ASPP_DROPOUT,
        }

    def context(self, x: torch.Tensor) -> torch.Tensor:
        return self.aspp(x)
