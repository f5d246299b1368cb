"""Synthetic shapes: a tiny panoptic data set in COCO's formats, made on first use.

Discs and boxes (things) stand before sky and grass (stuff). Some images hold a crowd of small
discs, some an unlabelled (void) area, so that the rules for both are needed.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from afdcd.data.synthetic.on_disk import draw_folder, write_image

logger = logging.getLogger(__name__)

# Raised whenever a change makes different pixels, so that old files are not taken for new ones.
VERSION = 1
HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = 2, 3
# Images of each split, and the first word of their seeds.
SPLITS = {"train": (24, 11), "val": (8, 12)}
# As in COCO, ids have gaps.
CATEGORIES: list[dict[str, Any]] = [
    {"id": 2, "name": "disc", "isthing": 1, "color": [220, 60, 40]},
    {"id": 3, "name": "box", "isthing": 1, "color": [40, 60, 220]},
    {"id": 6, "name": "sky", "isthing": 0, "color": [190, 215, 235]},
    {"id": 8, "name": "grass", "isthing": 0, "color": [60, 140, 50]},
]
DISC, BOX, SKY, GRASS = (category["id"] for category in CATEGORIES)
VOID_COLOR = (120, 110, 100)
# Of the stuff-only label maps, as Detectron2 makes them for COCO: every thing is 0.
THINGS_LABEL, VOID_LABEL = 0, 255


class ShapesFiles(NamedTuple):
    """The files of a split."""

    images: Path
    instances_json: Path
    panoptic: Path
    panoptic_json: Path
    stuff: Path


def shapes_files(root: Path, split: str) -> ShapesFiles:
    """Where a split is, or will be, below the data sets' root."""
    folder = root / "synthetic_shapes" / f"v{VERSION}_{split}"
    return ShapesFiles(
        folder / "images",
        folder / "instances.json",
        folder / "panoptic",
        folder / "panoptic.json",
        folder / "stuff",
    )


def make_shapes(root: Path, split: str) -> ShapesFiles:
    """Draw a split's files, unless they are there.

    Raises:
        DataError: the folder can't be written.
    """
    files = shapes_files(root, split)
    folder = files.images.parent
    if not folder.is_dir():
        count, seed = SPLITS[split]
        logger.info("Drawing %d images of synthetic shapes into %s", count, folder)
        draw_folder(folder, partial(_draw, count=count, seed=seed), "synthetic shapes")
    return files


class _Segment(NamedTuple):
    category: int
    mask: np.ndarray
    polygon: list[float] | None  # None for a crowd


def render_shapes(seed: tuple[int, ...]) -> tuple[np.ndarray, list[_Segment]]:
    """Draw an image.

    Args:
        seed: the image is a function of it.

    Returns:
        image uint8 [H, W, 3] in BGR, and its segments, which don't overlap. What none of them
        covers is void.
    """
    rng = np.random.default_rng(seed)
    horizon = int(rng.integers(HEIGHT // 3, 2 * HEIGHT // 3))
    rows = np.arange(HEIGHT)[:, None] + np.zeros((1, WIDTH), dtype=int)
    segments = [_Segment(SKY, rows < horizon, None), _Segment(GRASS, rows >= horizon, None)]
    crowd, void = (seed[-1] % 3 == 1), (seed[-1] % 3 == 2)
    cells = rng.permutation(ROWS * COLUMNS)
    count = int(rng.integers(2, 5))
    unlabelled = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for order, cell in enumerate(cells):
        # Neighbouring shapes don't touch.
        height, width = HEIGHT // ROWS, WIDTH // COLUMNS
        top, left = int(cell) // COLUMNS * height, int(cell) % COLUMNS * width
        if order < count:
            segments.append(_shape(rng, top, left, height, width))
        elif order == count and crowd:
            segments.append(_crowd(rng, top, left, height, width))
        elif order == count and void:
            unlabelled[top + 4 : top + height - 4, left + 4 : left + width - 4] = True
    visible = []
    above = unlabelled.copy()
    for category, mask, polygon in reversed(segments):
        visible.append(_Segment(category, mask & ~above, polygon))
        above |= mask
    visible.reverse()
    return _paint(rng, visible), [segment for segment in visible if segment.mask.any()]


def _shape(rng: np.random.Generator, top: int, left: int, height: int, width: int) -> _Segment:
    half = int(rng.integers(9, 17))
    y = top + height // 2 + int(rng.integers(-4, 5))
    x = left + width // 2 + int(rng.integers(-3, 4))
    if rng.random() < 0.5:
        points = np.array(cv2.ellipse2Poly((x, y), (half, half), 0, 0, 350, 10))
        category = DISC
    else:
        points = np.array([[x - half, y - half], [x + half, y - half]])
        points = np.concatenate([points, points[::-1] + [0, 2 * half]])
        category = BOX
    points = np.clip(points, 0, [WIDTH - 1, HEIGHT - 1]).astype(np.int32)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.fillPoly(mask, [points], 1)
    return _Segment(category, mask.astype(bool), points.astype(float).ravel().tolist())


def _crowd(rng: np.random.Generator, top: int, left: int, height: int, width: int) -> _Segment:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for _ in range(12):
        x = left + int(rng.integers(4, width - 4))
        y = top + int(rng.integers(4, height - 4))
        cv2.circle(mask, (x, y), 3, 1, -1)
    return _Segment(DISC, mask.astype(bool), None)


def _paint(rng: np.random.Generator, segments: list[_Segment]) -> np.ndarray:
    colors = {category["id"]: category["color"] for category in CATEGORIES}
    image = np.empty((HEIGHT, WIDTH, 3))
    image[:] = VOID_COLOR
    for category, mask, _ in segments:
        image[mask] = np.array(colors[category]) + rng.normal(0, 15, 3)
    image += rng.normal(0, 6, image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)[..., ::-1]


def _draw(folder: Path, count: int, seed: int) -> None:
    for name in ("images", "panoptic", "stuff"):
        (folder / name).mkdir()
    images: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for index in range(count):
        pixels, segments = render_shapes((seed, index))
        identity, stem = index + 1, f"{index + 1:06d}"
        write_image(folder / "images" / f"{stem}.jpg", np.ascontiguousarray(pixels))
        image = {"id": identity, "file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH}
        images.append(image)
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        stuff = np.full((HEIGHT, WIDTH), VOID_LABEL, dtype=np.uint8)
        infos = []
        for number, segment in enumerate(segments):
            # Any distinct numbers do; these use two of the three bytes.
            segment_id = 100 * (number + 1) + identity
            ids[segment.mask] = segment_id
            stuff[segment.mask] = _stuff_label(segment.category)
            info = _annotation(segment, segment_id)
            infos.append(info)
            if segment.category in (DISC, BOX):
                instances.append(
                    {
                        **info,
                        "id": len(instances) + 1,
                        "image_id": identity,
                        "segmentation": _segmentation(segment),
                    }
                )
        panoptic.append({"image_id": identity, "file_name": f"{stem}.png", "segments_info": infos})
        bytes_ = np.stack([ids // 65536, ids // 256 % 256, ids % 256], axis=-1)  # BGR
        write_image(folder / "panoptic" / f"{stem}.png", bytes_.astype(np.uint8))
        write_image(folder / "stuff" / f"{stem}.png", stuff)
    things = [category for category in CATEGORIES if category["isthing"]]
    for name, entries, categories in (
        ("panoptic", panoptic, CATEGORIES),
        ("instances", instances, things),
    ):
        content = {"images": images, "annotations": entries, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))


def _annotation(segment: _Segment, segment_id: int) -> dict[str, Any]:
    rows, columns = np.nonzero(segment.mask)
    top, left = int(rows.min()), int(columns.min())
    box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
    thing = segment.category in (DISC, BOX)
    return {
        "id": segment_id,
        "category_id": segment.category,
        "iscrowd": int(thing and segment.polygon is None),
        "bbox": box,
        "area": int(segment.mask.sum()),
    }


def _stuff_label(category: int) -> int:
    stuff = [c["id"] for c in CATEGORIES if not c["isthing"]]
    return stuff.index(category) + 1 if category in stuff else THINGS_LABEL


def _segmentation(segment: _Segment) -> Any:
    if segment.polygon is not None:
        return [segment.polygon]
    # Run lengths, down the columns, of zeros and ones in turn.
    flat = segment.mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"counts": runs, "size": [HEIGHT, WIDTH]}
