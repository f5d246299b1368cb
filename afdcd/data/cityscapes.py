"""Cityscapes, 19 classes, fine annotations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import IGNORE, LabelMap
from afdcd.data.pairs import first_folder, image_files, pair_records
from afdcd.data.spec import DatasetSpec, Record

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
COLORS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)
# The official ids of the 19 classes; the others up to 33 (and the licence plate, -1) don't count.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ID_MAP = LabelMap(
    num_classes=len(CLASSES),
    mapping={raw: label for label, raw in enumerate(IDS)},
    ignored=frozenset(set(range(34)) - set(IDS)) | {IGNORE},
)
TRAIN_ID_MAP = LabelMap(num_classes=len(CLASSES))
# Split -> number of images. (The labels of "test" are with the benchmark's server.)
SPLITS = {"train": 2975, "val": 500}


def load(root: Path, *, split: str) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/cityscapes/{leftImg8bit,gtFine}/<split>/<city>/``.

    Label maps are the official ``*_gtFine_labelIds.png``, or ``*_gtFine_labelTrainIds.png`` where
    these were prepared, as for Detectron2.

    Raises:
        DataError: no such folders, or an image without a label map.
    """
    title = f"Cityscapes ({split})"
    base = _base(root, [f"leftImg8bit/{split}", f"gtFine/{split}"], title)
    images = _images_in(base, split)

    def label_file(image: Path, kind: str) -> Path:
        name = image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
        return base / "gtFine" / split / image.parent.name / name

    prepared = bool(images) and all(label_file(i, "labelTrainIds").is_file() for i in images)
    kind = "labelTrainIds" if prepared else "labelIds"
    records = pair_records([(i, label_file(i, kind)) for i in images], f"{title} in {base}")
    return records, TRAIN_ID_MAP if prepared else ID_MAP


def images(root: Path, *, split: str) -> list[Path]:
    """The images of `load`, whether there are label maps or not. Raises DataError."""
    base = _base(root, [f"leftImg8bit/{split}"], f"Cityscapes ({split})")
    return _images_in(base, split)


def _base(root: Path, contents: list[str], title: str) -> Path:
    return first_folder([root / "cityscapes", root / "Cityscapes", root], contents, title)


def _images_in(base: Path, split: str) -> list[Path]:
    return image_files(base / "leftImg8bit" / split, "*/*_leftImg8bit.png")


for _split, _count in SPLITS.items():
    # Detectron2's names, so that one config serves both runtimes.
    register_dataset(
        DatasetSpec(
            f"cityscapes_fine_sem_seg_{_split}",
            CLASSES,
            COLORS,
            partial(load, split=_split),
            expected=_count,
            official=ID_MAP,
            size=(1024, 2048),
            images=partial(images, split=_split),
        )
    )
