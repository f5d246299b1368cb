"""The synthetic shapes in Detectron2's catalogs, in every form that it has for COCO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    register_coco_instances,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)

from afdcd.data.datasets import datasets_root
from afdcd.data.synthetic.shapes import CATEGORIES, SPLITS, make_shapes, shapes_files

SUFFIXES = ("", "_panoptic_separated", "_panoptic", "_panoptic_stuffonly")
# Names that this package has registered.
_registered: set[str] = set()


def register_shapes(root: Path | None = None) -> None:
    """Register (anew) ``shapes_<split>`` and its relatives; their files are drawn when first used.

    ``shapes_train`` has instances, ``shapes_train_panoptic_separated`` is for PanopticFPN,
    ``shapes_train_panoptic`` holds segments only, ``shapes_train_panoptic_stuffonly`` label maps.

    Args:
        root: folder that holds the data sets; `datasets_root` when None.
    """
    root = datasets_root() if root is None else root
    for split in SPLITS:
        name = f"shapes_{split}"
        ours = [f"{name}{suffix}" for suffix in SUFFIXES]
        taken = [known for known in ours if known in DatasetCatalog]
        if set(taken) - _registered:
            continue  # a user's
        for known in taken:
            DatasetCatalog.remove(known)
            MetadataCatalog.remove(known)
        _registered.update(ours)
        files = shapes_files(root, split)
        images, instances_json, panoptic, panoptic_json, stuff = map(str, files)
        register_coco_instances(name, _instances_meta(), instances_json, images)
        register_coco_panoptic_separated(
            f"{name}_panoptic",
            {**_instances_meta(), **_stuff_meta()},
            images,
            panoptic,
            panoptic_json,
            stuff,
            instances_json,
        )
        register_coco_panoptic(
            f"{name}_panoptic", _standard_meta(), images, panoptic, panoptic_json, instances_json
        )
        for known in ours:
            load = DatasetCatalog.pop(known)
            DatasetCatalog.register(known, _drawn_first(root, split, load))


def _drawn_first(root: Path, split: str, load: Callable[[], Any]) -> Callable[[], Any]:
    def draw_and_load() -> Any:
        make_shapes(root, split)
        return load()

    return draw_and_load


def _names(*, things: bool) -> tuple[list[str], list[list[int]], list[int]]:
    chosen = [c for c in CATEGORIES if bool(c["isthing"]) == things]
    return [c["name"] for c in chosen], [c["color"] for c in chosen], [c["id"] for c in chosen]


def _instances_meta() -> dict[str, Any]:
    classes, colors, ids = _names(things=True)
    return {
        "thing_classes": classes,
        "thing_colors": colors,
        "thing_dataset_id_to_contiguous_id": {raw: index for index, raw in enumerate(ids)},
    }


def _stuff_meta() -> dict[str, Any]:
    classes, colors, ids = _names(things=False)
    return {
        "stuff_classes": ["things", *classes],
        "stuff_colors": [[82, 18, 128], *colors],
        "stuff_dataset_id_to_contiguous_id": {
            0: 0,
            **{raw: index + 1 for index, raw in enumerate(ids)},
        },
    }


def _standard_meta() -> dict[str, Any]:
    classes, colors = [c["name"] for c in CATEGORIES], [c["color"] for c in CATEGORIES]
    meta: dict[str, Any] = {
        "thing_classes": classes,
        "thing_colors": colors,
        "stuff_classes": classes,
        "stuff_colors": colors,
    }
    for index, category in enumerate(CATEGORIES):
        kind = "thing" if category["isthing"] else "stuff"
        meta.setdefault(f"{kind}_dataset_id_to_contiguous_id", {})[category["id"]] = index
    return meta


register_shapes()
