"""Backbone and head as a model in Detectron2's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.registry import Backbone
from afdcd.models.heads.registry import Head

# Blue, green, red mean of the published networks' inputs, in 0..255.
PIXEL_MEAN = (104.00698793, 116.66876762, 122.67891434)
PIXEL_STD = (1.0, 1.0, 1.0)


class SemanticSegmentor(nn.Module):
    """A semantic segmentation model with the attributes and state-dict names of Detectron2's.

    Args:
        backbone: e.g. `afdcd.models.ResNet`.
        sem_seg_head: e.g. `afdcd.models.ASPPHead`.
        pixel_mean, pixel_std: of each channel, in the inputs' channel order and in 0..255.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: Head,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        # Not persistent, as in Detectron2: they come from the config, not from the weights.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Losses in training, predictions in evaluation.

        Args:
            batched_inputs: a dict per image with ``image`` [3, H, W] in 0..255; in training also
                ``sem_seg`` int64 [H, W]; in evaluation optionally ``height`` and ``width``, the
                output's size (the image's by default).

        Returns:
            In training a dict of weighted scalar losses. In evaluation a list of
            ``{"sem_seg": [K, height, width]}``, raw logits.
        """
        images = [item["image"].to(self.device, non_blocking=True) for item in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        step = self.backbone.size_divisibility
        features = self.backbone(stack_padded(images, 0.0, step))
        if self.training:
            if "sem_seg" not in batched_inputs[0]:
                raise ValueError('training needs labels: each input must hold "sem_seg" [H, W]')
            labels = [item["sem_seg"].to(self.device, non_blocking=True) for item in batched_inputs]
            targets = stack_padded(labels, self.sem_seg_head.ignore_value, step)
            _, losses = self.sem_seg_head(features, targets)
            return losses
        logits, _ = self.sem_seg_head(features)
        return [
            {"sem_seg": to_size(result[:, : image.shape[-2], : image.shape[-1]], item)}
            for result, image, item in zip(logits, images, batched_inputs, strict=True)
        ]


def stack_padded(tensors: list[torch.Tensor], fill: float, step: int) -> torch.Tensor:
    """Stack [..., H, W] tensors, padded at the bottom and right to one size.

    Args:
        tensors: with equal numbers of dimensions.
        fill: the padding's value.
        step: height and width are made multiples of this many pixels; 0 for no such padding.
    """
    height, width = (
        -(-max(t.shape[axis] for t in tensors) // max(step, 1)) * max(step, 1) for axis in (-2, -1)
    )
    return torch.stack(
        [F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=fill) for t in tensors]
    )


def to_size(logits: torch.Tensor, item: dict[str, Any]) -> torch.Tensor:
    """Resize [K, H, W] to the item's height and width, as Detectron2's post-processing does."""
    size = (item.get("height", logits.shape[-2]), item.get("width", logits.shape[-1]))
    if size == tuple(logits.shape[-2:]):
        return logits
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
