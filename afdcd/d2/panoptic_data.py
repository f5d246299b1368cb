"""Data sets in COCO's panoptic format as PanopticFPN's inputs.

PanopticFPN numbers things from 0 in its instance head; its semantic head has 0 for all things
together and numbers stuff from 1. Detectron2 makes label maps for that beforehand, by a script that
needs panopticapi, and has no such form of Cityscapes. Here they are made while loading.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

PANOPTIC_TYPES = ("coco_panoptic_seg", "cityscapes_panoptic_seg")
THINGS = 0


def is_standard(metadata: Any) -> bool:
    """Whether a panoptic data set numbers things and stuff in one row (its "standard" form)."""
    if getattr(metadata, "evaluator_type", "") not in PANOPTIC_TYPES:
        return False
    things, stuff = _maps(metadata)
    return not set(things.values()) & set(stuff.values())


def separated_classes(metadata: Any) -> tuple[dict[int, int], dict[int, int]]:
    """PanopticFPN's class of each thing, and of each kind of stuff, by the data set's own id.

    Args:
        metadata: of a panoptic data set in either form.
    """
    things, stuff = _maps(metadata)
    first = min(stuff.values()) + 1 if set(things.values()) & set(stuff.values()) else 0
    thing_ids = sorted(things, key=things.__getitem__)
    stuff_ids = [raw for raw in sorted(stuff, key=stuff.__getitem__) if stuff[raw] >= first]
    return (
        {raw: index for index, raw in enumerate(thing_ids)},
        {raw: THINGS + 1 + index for index, raw in enumerate(stuff_ids)},
    )


def _maps(metadata: Any) -> tuple[dict[int, int], dict[int, int]]:
    return metadata.thing_dataset_id_to_contiguous_id, metadata.stuff_dataset_id_to_contiguous_id


def segment_ids(rgb: np.ndarray) -> np.ndarray:
    """COCO's segment ids [H, W] of a picture [H, W, 3] in RGB."""
    wide = rgb.astype(np.int64)
    return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]


class PanopticMapper(DatasetMapper):
    """Detectron2's mapper for data sets in the standard panoptic form.

    A training sample has ``sem_seg`` and ``instances`` (with masks as bitmaps) in PanopticFPN's
    numbering. Crowds are things in ``sem_seg``, and no instances.

    Args:
        thing_classes, stuff_classes: PanopticFPN's class of each of the records' categories.
        ignore_label: of void.
        settings: `DatasetMapper`'s.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        thing_classes: dict[int, int],
        stuff_classes: dict[int, int],
        ignore_label: int,
        **settings: Any,
    ) -> None:
        super().__init__(is_train, **settings)
        self.things, self.stuff = thing_classes, stuff_classes
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        contiguous = [row for rows in _maps(metadata) for row in rows.items()]
        to_contiguous = dict(contiguous)
        things, stuff = separated_classes(metadata)
        return {
            **super().from_config(cfg, is_train),
            # Records hold the metadata's contiguous numbers.
            "thing_classes": {to_contiguous[raw]: index for raw, index in things.items()},
            "stuff_classes": {to_contiguous[raw]: index for raw, index in stuff.items()},
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """A sample of a record with ``pan_seg_file_name`` and ``segments_info``."""
        sample = copy.copy(dataset_dict)
        segments = sample.pop("segments_info")
        sample.pop("sem_seg_file_name", None)  # of Cityscapes, in another numbering
        image = utils.read_image(sample["file_name"], format=self.image_format)
        utils.check_image_size(sample, image)
        picture = utils.read_image(sample.pop("pan_seg_file_name"), "RGB")
        # Transforms treat the picture as labels, so that its colours stay exact.
        augmented = T.AugInput(image, sem_seg=picture)
        self.augmentations(augmented)
        ids = segment_ids(augmented.sem_seg)
        labels = np.full(ids.shape, self.ignore_label, dtype=np.int64)
        masks, classes = [], []
        for segment in segments:
            mask = ids == segment["id"]
            category = segment["category_id"]
            if category in self.stuff:
                labels[mask] = self.stuff[category]
                continue
            labels[mask] = THINGS
            if not segment.get("iscrowd", 0) and mask.any():
                masks.append(mask)
                classes.append(self.things[category])
        sample["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        sample["sem_seg"] = torch.as_tensor(labels)
        sample["instances"] = self._instances(masks, classes, ids.shape)
        return sample

    def _instances(
        self, masks: list[np.ndarray], classes: list[int], size: tuple[int, int]
    ) -> Instances:
        bitmaps = BitMasks(np.stack(masks) if masks else np.zeros((0, *size), dtype=bool))
        found = Instances(size)
        found.gt_boxes = bitmaps.get_bounding_boxes()
        found.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if self.use_instance_mask:
            found.gt_masks = bitmaps
        return found
