"""Mappers of data in Detectron2's form, which ``INPUT.MAPPER`` chooses by name.

``scale_crop`` isn't among them: it is this package's own, for semantic segmentation, and both
runtimes have it.
"""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetMapper, MetadataCatalog

from afdcd.d2.panoptic_data import PanopticMapper, is_standard
from afdcd.utils.registry import Registry

# Functions or classes, called with (cfg, is_train), that give a mapper: from a record of the
# catalog to a sample. A module of IMPORTS may register its own; it draws random numbers from
# numpy's global generator, which is seeded for each sample, so that a resumed run sees the same.
MAPPERS = Registry("MAPPERS")


@MAPPERS.register("detectron2")
def detectron2_mapper(cfg: Any, is_train: bool) -> Any:
    """Detectron2's own; for panoptic data sets in the standard form, one that reads segments."""
    if is_train and is_standard(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])):
        return PanopticMapper(cfg, is_train=True)
    return DatasetMapper(cfg, is_train=is_train)
