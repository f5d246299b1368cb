"""What a segmentation head is, and the registry that configs choose heads from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from afdcd.models.layers import ShapeSpec
from afdcd.utils.registry import Registry


class Head(nn.Module):
    """Feature maps in, losses or logits out; subclass it and register the class in `HEADS`.

    The name it is registered under is what ``MODEL.SEM_SEG_HEAD.NAME`` says, in both runtimes; the
    protocol is that of Detectron2's semantic segmentation heads. `SegmentationHead` is a head with
    everything but the context module: most heads subclass it and define ``context``.

    Attributes:
        POOLS_IMAGES: whether averages of whole images go through a BatchNorm, so that training
            needs at least two images at once.
        ALIGN_CORNERS: whether logits are resized with ``align_corners=True``, in the loss and
            after: where they lie in the image, which losses of logits go by.
        ignore_value: label of the pixels that don't count; set by the constructor.
    """

    POOLS_IMAGES: ClassVar[bool] = False
    ALIGN_CORNERS: ClassVar[bool] = False
    ignore_value: int

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """The constructor's arguments from a config, which nothing else of a head reads.

        An argument called ``norm`` is the name of a normalization; with Detectron2 the constructor
        gets a function of the channels instead, so that all of Detectron2's names can be used.

        Args:
            cfg: the config.
            input_shape: the backbone's ``output_shape()``.
        """
        raise NotImplementedError(f"{cls.__name__} has no from_config()")

    def layers(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [N, K, h, w] of the backbone's maps, not resized.

        Only ``TEST.SCALES``, ``TEST.FLIP`` and ``TEST.WINDOW`` need it besides `forward`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no layers()")

    def forward(
        self, features: Mapping[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Losses in training, logits in evaluation.

        Args:
            features: what the backbone returned; where the backbone is one of this package's,
                `FeatureMaps`, which know the images' size.
            targets: labels, int64 [N, H, W], in training.

        Returns:
            in training ``(None, weighted scalar losses by name)``, in evaluation
            ``(logits [N, K, H, W] at the images' size, {})``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward()")


HEADS = Registry("HEADS", base=Head)
