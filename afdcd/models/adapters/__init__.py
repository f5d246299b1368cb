"""Other people's models in this project's protocol, as teachers, by name."""

from afdcd.models.adapters import (  # noqa: F401  (they register their kinds)
    exported_program,
    function,
    segmentation_models,
    torchscript,
    transformers_model,
)
from afdcd.models.adapters.adapter import Adapter
from afdcd.models.adapters.images import ImageSettings
from afdcd.models.adapters.registry import ADAPTERS
from afdcd.models.adapters.source import Source, read_source

__all__ = ["ADAPTERS", "Adapter", "ImageSettings", "Source", "read_source"]
