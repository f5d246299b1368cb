"""Panoptic evaluation without panopticapi."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from afdcd.d2.panoptic_data import segment_ids, separated_classes
from afdcd.evaluation import PanopticQuality


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic quality of a data set in COCO's panoptic format.

    Args:
        name: its metadata must hold ``panoptic_json``, ``panoptic_root`` and the maps from the
            data set's category ids to contiguous ones.
        separated: whether the model numbers things and stuff each on their own, as PanopticFPN
            does, rather than in one row, as the metadata of a "standard" data set do.
    """

    def __init__(self, name: str, *, separated: bool = True) -> None:
        metadata = MetadataCatalog.get(name)
        content = json.loads(Path(metadata.panoptic_json).read_text())
        self._root = Path(metadata.panoptic_root)
        self._truths = {a["image_id"]: a for a in content["annotations"]}
        self._categories = {c["id"]: bool(c["isthing"]) for c in content["categories"]}
        things, stuff = (
            separated_classes(metadata)
            if separated
            else (
                metadata.thing_dataset_id_to_contiguous_id,
                metadata.stuff_dataset_id_to_contiguous_id,
            )
        )
        self._thing_ids = {number: raw for raw, number in things.items()}
        self._stuff_ids = {number: raw for raw, number in stuff.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.quality = PanopticQuality(self._categories)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add images: the model's inputs, and its outputs with ``panoptic_seg``."""
        for item, output in zip(inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            prediction = ids.cpu().numpy().astype(np.int64)
            if segments is None:
                raise ValueError("the model gives panoptic_seg without its segments' categories")
            # Some post-processing leaves segments without a pixel in the list.
            predicted = {
                int(s["id"]): (self._thing_ids if s["isthing"] else self._stuff_ids)[
                    s["category_id"]
                ]
                for s in segments
                if (prediction == s["id"]).any()
            }
            truth = self._truths[item["image_id"]]
            with Image.open(self._root / truth["file_name"]) as picture:
                ids_true = segment_ids(np.asarray(picture.convert("RGB")))
            self.quality.update(
                prediction,
                predicted,
                ids_true,
                truth["segments_info"],
            )

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{"panoptic_seg": figures}`` on the main process, None on the others."""
        comm.synchronize()
        everyones = comm.gather(self.quality)
        if not comm.is_main_process():
            return None
        total = PanopticQuality(self._categories)
        for quality in everyones:
            total.merge(quality)
        return {"panoptic_seg": total.results()}
