"""What the segmentation heads have in common: classifier, auxiliary head, upsampling and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.heads.registry import Head
from afdcd.models.layers import ConvNorm, FeatureMaps, Norm, ShapeSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def segmentation_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, ignore_value: int = 255
) -> torch.Tensor:
    """Cross-entropy of upsampled logits, averaged over the pixels that are not ignored.

    Args:
        logits: [N, K, h, w]; upsampled bilinearly with ``align_corners=True``, in float32 at least.
        labels: int64 [N, H, W], 0..K-1 or ``ignore_value``.

    Returns:
        scalar, in nats; 0 (with a zero gradient) where every pixel is ignored.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = upsample(logits, (labels.shape[-2], labels.shape[-1]))
    total = F.cross_entropy(logits, labels, ignore_index=ignore_value, reduction="sum")
    return total / (labels != ignore_value).sum().clamp(min=1)


def upsample(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize [N, K, h, w] bilinearly, corners on corners, as the published networks do."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def check_outputs(input_shape: Mapping[str, ShapeSpec], names: Iterable[str]) -> None:
    """Raise ValueError where a backbone doesn't return an output that a head needs."""
    for name in names:
        if name not in input_shape:
            raise ValueError(
                f"the head needs the backbone output {name!r}, but the backbone returns "
                f"{', '.join(input_shape)}: add it to OUT_FEATURES (out_features)"
            )


class FCNHead(nn.Module):
    """conv3x3 to a quarter of the channels, dropout, conv1x1 to the classes: the auxiliary head."""

    def __init__(
        self, in_channels: int, num_classes: int, *, dropout: float = 0.1, norm: Norm = "BN"
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, in_channels // 4, 3, norm=norm)
        self.dropout = nn.Dropout(dropout)
        self.predictor = nn.Conv2d(in_channels // 4, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.predictor(self.dropout(self.conv(x)))


class SegmentationHead(Head):
    """Context module, fusing convolution, dropout and classifier on one backbone output.

    Follows the protocol of Detectron2's semantic segmentation heads: in training `forward` returns
    ``(None, losses)``, in evaluation ``(logits at the image's size, {})``.

    Args:
        input_shape: the backbone's ``output_shape()``.
        in_features: the name of the output that the head works on.
        num_classes: K.
        context: module from the input's channels to ``context_channels``.
        hidden_channels: output of the fusing convolution.
        fuse_size: kernel of the fusing convolution.
        dropout: before the classifier.
        aux_weight: weight of the auxiliary head's loss; 0 builds none.
        aux_in_feature: the output that the auxiliary head works on.
        ignore_value: label of the pixels that don't count.
        loss_weight: weight of the main loss.
        norm: ``BN``, ``SyncBN`` or a function of the channels.
    """

    ALIGN_CORNERS: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: str,
        num_classes: int,
        context_channels: int,
        hidden_channels: int,
        fuse_size: int = 3,
        dropout: float = 0.1,
        aux_weight: float = 0.0,
        aux_in_feature: str = "res4",
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        norm: Norm = "BN",
    ) -> None:
        super().__init__()
        check_outputs(input_shape, [in_features, aux_in_feature] if aux_weight else [in_features])
        self.in_feature = in_features
        self.aux_in_feature = aux_in_feature
        self.ignore_value = ignore_value
        self.loss_weight = loss_weight
        self.set_loss(
            "loss_sem_seg", partial(segmentation_cross_entropy, ignore_value=ignore_value)
        )
        self.aux_weight = aux_weight
        self.stride = input_shape[in_features].stride or 1
        self.fuse = ConvNorm(context_channels, hidden_channels, fuse_size, norm=norm)
        self.dropout = nn.Dropout(dropout)
        self.predictor: nn.Module = nn.Conv2d(hidden_channels, num_classes, 1)
        self.aux = (
            FCNHead(input_shape[aux_in_feature].channels, num_classes, norm=norm)
            if aux_weight
            else None
        )

    def set_loss(self, name: str, loss: Loss) -> None:
        """Make the head learn a task other than segmentation.

        Args:
            name: of the loss.
            loss: maps an output [N, K, h, w] and targets [N, H, W] to a scalar.
        """
        self.loss_name, self.loss = name, loss

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments from ``MODEL.SEM_SEG_HEAD``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "in_features": cls.read_in_features(head.IN_FEATURES),
            "num_classes": head.NUM_CLASSES,
            "hidden_channels": head.CONVS_DIM,
            "aux_weight": head.AUX_WEIGHT,
            "aux_in_feature": head.AUX_IN_FEATURE,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
            "dropout": head.DROPOUT,
            "norm": head.NORM,
        }

    @classmethod
    def read_in_features(cls, names: Sequence[str]) -> Any:
        """The constructor's ``in_features`` from ``MODEL.SEM_SEG_HEAD.IN_FEATURES``."""
        if len(names) != 1:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES: {cls.__name__} takes one backbone output, e.g. "
                f"['res5']; got {list(names)}"
            )
        return names[0]

    def context(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] to [N, context_channels, h, w]."""
        raise NotImplementedError

    def layers(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [N, K, h, w] at the backbone output's size."""
        x = self.context(features[self.in_feature])
        return self.predictor(self.dropout(self.fuse(x)))

    def forward(
        self, features: Mapping[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """See the class.

        Args:
            features: what the backbone returned.
            targets: int64 [N, H, W] in training.
        """
        logits = self.layers(features)
        if not self.training:
            return self.resize(logits, self._image_size(features, logits)), {}
        if targets is None:
            raise ValueError('training needs labels: each input must hold "sem_seg" [H, W]')
        return None, self.losses(features, logits, targets)

    def losses(
        self, features: Mapping[str, torch.Tensor], logits: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Weighted losses: the main one and, with an auxiliary head, ``<name>_aux``."""
        losses = {self.loss_name: self.loss_weight * self.loss_of(logits, targets)}
        if self.aux is not None:
            aux_loss = self.loss_of(self.aux(features[self.aux_in_feature]), targets)
            losses[f"{self.loss_name}_aux"] = self.aux_weight * aux_loss
        return losses

    def loss_of(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of an output [N, K, h, w], unweighted; targets are [N, H, W]."""
        return self.loss(output, targets)

    def resize(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Logits [N, K, h, w] at another size."""
        return upsample(logits, size)

    def _image_size(
        self, features: Mapping[str, torch.Tensor], logits: torch.Tensor
    ) -> tuple[int, int]:
        if isinstance(features, FeatureMaps):
            return features.image_size
        # Another library's backbone doesn't tell the image's size: assume whole strides.
        return logits.shape[-2] * self.stride, logits.shape[-1] * self.stride
