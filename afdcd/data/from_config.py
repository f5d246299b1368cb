"""Mappers as a config describes them."""

from __future__ import annotations

from typing import Any

from afdcd.data.labels import LabelMap
from afdcd.data.mapper import SegmentationMapper, TrainingAugmentation


def training_mapper(cfg: Any, label_map: LabelMap) -> SegmentationMapper:
    """The paper's mapper, from ``INPUT`` and ``DATALOADER``."""
    crop = cfg.INPUT.SCALE_CROP
    augmentation = TrainingAugmentation(
        (crop.SIZE[0], crop.SIZE[1]),
        scales=(crop.SCALES[0], crop.SCALES[1]),
        scale_step=crop.SCALE_STEP,
        flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        pad_value=tuple(cfg.MODEL.PIXEL_MEAN),
    )
    return SegmentationMapper(
        label_map,
        augmentation,
        short_side=cfg.INPUT.MIN_SIZE_TRAIN[0],
        image_format=cfg.INPUT.FORMAT,
        cache_bytes=cfg.DATALOADER.CACHE_MB << 20,
        cache_dir=cfg.DATALOADER.CACHE_DIR,
    )


def evaluation_mapper(cfg: Any, label_map: LabelMap) -> SegmentationMapper:
    """Whole images, without labels: these are read at full size by the evaluator."""
    return SegmentationMapper(
        label_map,
        short_side=cfg.INPUT.MIN_SIZE_TEST,
        image_format=cfg.INPUT.FORMAT,
        with_labels=False,
    )
