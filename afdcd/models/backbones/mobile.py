"""What mobile networks of inverted residuals have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from afdcd.models.backbones.staged import StagedBackbone


class MobileBackbone(StagedBackbone):
    """A `StagedBackbone` whose width can be scaled.

    Attributes:
        NODE: below ``MODEL`` in a config; its keys are the constructor's arguments in upper case.
    """

    NODE: ClassVar[str]

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Constructor arguments from the class's node, and the output stride."""
        settings = {name.lower(): value for name, value in cfg.MODEL[cls.NODE].items()}
        settings["out_features"] = tuple(settings["out_features"])
        return settings | {"output_stride": cfg.MODEL.BACKBONE.OUTPUT_STRIDE}


def check_width(width_mult: float) -> None:
    """Raise ValueError for a factor of the channels that can't work."""
    if width_mult <= 0:
        raise ValueError(f"width_mult must be above 0; got {width_mult}")
