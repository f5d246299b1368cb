"""What a backbone is, and the registry that configs choose backbones from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from afdcd.models.layers import FeatureMaps, ShapeSpec
from afdcd.utils.registry import Registry


class Backbone(nn.Module):
    """Images in, feature maps by name out; subclass it and register the class in `BACKBONES`.

    A subclass has a constructor, `output_shape`, `feature_maps`, and, if its constructor takes
    arguments, `from_config`. The name it is registered under is what ``MODEL.BACKBONE.NAME`` says,
    in both runtimes. The attributes are those of ``detectron2.modeling.Backbone``, and Detectron2
    takes a subclass for one of its own.

    Attributes:
        size_divisibility: images are padded at the bottom and right to multiples of this many
            pixels, with the mean colour; 0 for no padding. Padded images can't be averaged over
            scales or slid over in windows (``TEST.SCALES``, ``TEST.FLIP``, ``TEST.WINDOW``).
        padding_constraints: Detectron2 asks for them; this package's networks have none.
    """

    size_divisibility: int = 0
    padding_constraints: ClassVar[dict[str, int]] = {}

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The constructor's arguments from a config, which nothing else of a backbone reads.

        An argument called ``norm`` is the name of a normalization; with Detectron2 the constructor
        gets a function of the channels instead, so that all of Detectron2's names can be used.
        """
        return {}

    def freeze(self, at: int) -> None:
        """Keep the first ``at`` parts as they were loaded: ``MODEL.BACKBONE.FREEZE_AT``.

        A backbone without a method of its own trains whole, whatever the config says.

        Raises:
            ValueError: there aren't so many parts, or the backbone refuses to freeze any.
        """

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map by name, e.g. ``{"res5": ShapeSpec(...)}``."""
        raise NotImplementedError(f"{type(self).__name__} has no output_shape()")

    def feature_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The maps that `output_shape` names.

        Args:
            x: [N, 3, H, W], normalized.

        Returns:
            by name, [N, channels, h, w] with h and w about H and W divided by the stride.
        """
        raise NotImplementedError(f"{type(self).__name__} has no feature_maps()")

    def forward(self, x: torch.Tensor) -> FeatureMaps:
        """`feature_maps` of [N, 3, H, W], with the size of the images they were made from.

        Raises:
            ValueError: the maps have other names than `output_shape`.
        """
        maps = self.feature_maps(x)
        if maps.keys() != self.output_shape().keys():
            raise ValueError(
                f"{type(self).__name__}.feature_maps returns {', '.join(maps)}, but output_shape "
                f"names {', '.join(self.output_shape())}"
            )
        return FeatureMaps(maps, image_size=(x.shape[-2], x.shape[-1]))


BACKBONES = Registry("BACKBONES", base=Backbone)
