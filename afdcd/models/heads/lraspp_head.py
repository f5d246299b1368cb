"""The LR-ASPP head of MobileNetV3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.heads.registry import HEADS
from afdcd.models.heads.segmentation_head import SegmentationHead, check_outputs
from afdcd.models.layers import ConvNorm, Norm, ShapeSpec


class TwoLevelPredictor(nn.Module):
    """The sum of two classifiers, so that the logits are one module's output."""

    def __init__(self, low_channels: int, high_channels: int, num_classes: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(low_channels, num_classes, 1)
        self.high = nn.Conv2d(high_channels, num_classes, 1)

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return self.low(low) + self.high(high)


@HEADS.register("LRASPPHead")
class LRASPPHead(SegmentationHead):
    """Lite R-ASPP (arXiv 1905.02244, figure 10) as in torchvision.

    The high level is projected, multiplied by a sigmoid of a conv1x1 of its mean over the image,
    resized to the low level, and classified; so is the low level. Both logits are added. Resizing
    is bilinear with ``align_corners=False`` throughout, unlike in the published networks' heads.

    Args:
        in_features: names of the low and the high level: ``("res3.0", "res5")`` of MobileNetV3 for
            torchvision's network, ``("res3", "res5")`` of other backbones.
        hidden_channels: that the high level is projected to.
        dropout: before the classifiers; 0 in torchvision.
        **head: see `SegmentationHead`.
    """

    ALIGN_CORNERS: ClassVar[bool] = False

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str],
        num_classes: int,
        hidden_channels: int = 128,
        dropout: float = 0.0,
        norm: Norm = "BN",
        **head: Any,
    ) -> None:
        if len(in_features) != 2:
            raise ValueError(
                "LRASPPHead takes two backbone outputs (MODEL.SEM_SEG_HEAD.IN_FEATURES), the low "
                f"and the high level, e.g. ['res3', 'res5']; got {list(in_features)}"
            )
        low, high = in_features
        check_outputs(input_shape, in_features)
        low_channels, high_channels = input_shape[low].channels, input_shape[high].channels
        super().__init__(
            input_shape,
            in_features=high,
            num_classes=num_classes,
            context_channels=high_channels,
            hidden_channels=hidden_channels,
            dropout=dropout,
            norm=norm,
            **head,
        )
        self.low_feature = low
        self.stride = input_shape[low].stride or 1
        # In place of the other heads' 3x3 convolution and single classifier.
        self.fuse = ConvNorm(high_channels, hidden_channels, 1, norm=norm)
        self.predictor = TwoLevelPredictor(low_channels, hidden_channels, num_classes)
        self.attention = nn.Conv2d(high_channels, hidden_channels, 1, bias=False)

    @classmethod
    def read_in_features(cls, names: Sequence[str]) -> Sequence[str]:
        return tuple(names)

    def layers(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [N, K, h, w] at the low level's size."""
        low, high = features[self.low_feature], features[self.in_feature]
        factor = torch.sigmoid(self.attention(F.adaptive_avg_pool2d(high, 1)))
        x = self.resize(self.fuse(high) * factor, (low.shape[-2], low.shape[-1]))
        return self.predictor(low, self.dropout(x))

    def losses(
        self, features: Mapping[str, torch.Tensor], logits: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        # Trained as it predicts: the loss would resize with corners on corners.
        full = logits if logits.dtype == torch.float64 else logits.float()
        full = self.resize(full, (targets.shape[-2], targets.shape[-1]))
        return super().losses(features, full, targets)

    def resize(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
