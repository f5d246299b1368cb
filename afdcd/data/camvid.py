"""CamVid, 11 classes, as segmentation papers use it (published with the SegNet tutorial)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import IGNORE, LabelMap
from afdcd.data.pairs import first_folder, image_files, pair_records
from afdcd.data.spec import DatasetSpec, Record

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
COLORS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
VOID = 11
LABEL_MAP = LabelMap(num_classes=len(CLASSES), ignored=frozenset({VOID, IGNORE}))
# Split -> number of images.
SPLITS = {"train": 367, "val": 101, "test": 233}


def load(root: Path, *, splits: tuple[str, ...]) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/camvid/{train,val,test}`` with label maps in ``{split}annot``.

    ``<root>/CamVid`` and ``<root>`` itself are looked at too.

    Raises:
        DataError: no such folders, or an image without a label map.
    """
    folders = [name for split in splits for name in (split, f"{split}annot")]
    base = _base(root, folders, splits)
    pairs = [
        (image, base / f"{split}annot" / image.name)
        for split in splits
        for image in image_files(base / split, "*.png")
    ]
    return pair_records(pairs, f"CamVid ({'+'.join(splits)}) in {base}"), LABEL_MAP


def images(root: Path, *, splits: tuple[str, ...]) -> list[Path]:
    """The images of `load`, whether there are label maps or not. Raises DataError."""
    base = _base(root, list(splits), splits)
    return [image for split in splits for image in image_files(base / split, "*.png")]


def _base(root: Path, folders: list[str], splits: tuple[str, ...]) -> Path:
    candidates = [root / "camvid", root / "CamVid", root]
    return first_folder(candidates, folders, f"CamVid ({'+'.join(splits)})")


for _name, _splits in {s: (s,) for s in SPLITS}.items() | {"trainval": ("train", "val")}.items():
    register_dataset(
        DatasetSpec(
            f"camvid_{_name}",
            CLASSES,
            COLORS,
            partial(load, splits=_splits),
            expected=sum(SPLITS[s] for s in _splits),
            official=LABEL_MAP,
            size=(360, 480),
            images=partial(images, splits=_splits),
        )
    )
