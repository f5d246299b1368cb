"""The synthetic scenes as a data set on disk, made on first use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import LabelMap
from afdcd.data.pairs import pair_records
from afdcd.data.spec import DatasetSpec, Record
from afdcd.data.synthetic.on_disk import drawn_images, write_image
from afdcd.data.synthetic.scene import CLASSES, COLORS, render_scene

# Raised whenever a change makes different pixels, so that old files are not taken for new ones.
VERSION = 1
HEIGHT, WIDTH = 96, 128
# Scenes of each split, and the first word of their seeds: no scene is in two splits.
SPLITS = {"train": (480, 1), "val": (120, 2)}


def load(root: Path, *, split: str) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/synthetic_scenes/v<version>_<split>``, drawn first if need be.

    Raises:
        DataError: the folder can't be written, or is incomplete.
    """
    folder = root / "synthetic_scenes" / f"v{VERSION}_{split}"
    count, seed = SPLITS[split]
    draw = partial(_draw, count=count, seed=seed)
    images = drawn_images(folder, count, draw, "synthetic scenes")
    pairs = [(image, folder / "labels" / image.name) for image in images]
    return pair_records(pairs, f"synthetic scenes in {folder}"), LabelMap(len(CLASSES))


def _draw(folder: Path, count: int, seed: int) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(count):
        image, labels = render_scene((seed, index), HEIGHT, WIDTH)
        write_image(folder / "images" / f"{index:05d}.png", image)
        write_image(folder / "labels" / f"{index:05d}.png", labels)


for _split in SPLITS:
    register_dataset(
        DatasetSpec(f"synthetic_scenes_{_split}", CLASSES, COLORS, partial(load, split=_split))
    )
