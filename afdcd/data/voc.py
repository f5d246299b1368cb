"""Pascal VOC 2012 segmentation, 21 classes with the background, augmented with SBD."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import DataError, LabelMap
from afdcd.data.pairs import first_folder, image_files, pair_records
from afdcd.data.palette import bit_palette
from afdcd.data.spec import DatasetSpec, Record
from afdcd.data.split_lists import read_text, slashes

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
COLORS = bit_palette(len(CLASSES))
# The palette's index is the label; 255 is the border around objects.
LABEL_MAP = LabelMap(num_classes=len(CLASSES))
# Split -> number of images.
SPLITS = {"train": 1464, "val": 1449, "trainaug": 10582}
# Names that the list of the augmented training set goes by.
AUGMENTED_LISTS = ("trainaug.txt", "train_aug.txt")


def load(root: Path, *, split: str) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/VOCdevkit/VOC2012``, by the lists in ``ImageSets/Segmentation``.

    Label maps are in ``SegmentationClass``, of ``trainaug`` in ``SegmentationClassAug``. Where
    ``trainaug`` has no list, it is all of that folder but for ``val``.

    Raises:
        DataError: folders or lists are missing, or an image without a label map.
    """
    title = f"Pascal VOC 2012 ({split})"
    labels = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
    candidates = [root / name for name in ("VOCdevkit/VOC2012", "VOC2012", "voc/VOC2012", ".")]
    base = first_folder(candidates, ["JPEGImages", labels, "ImageSets/Segmentation"], title)
    names = (
        _augmented(base, title) if split == "trainaug" else _listed(base, [f"{split}.txt"], title)
    )
    pairs = [(base / "JPEGImages" / f"{n}.jpg", base / labels / f"{n}.png") for n in names]
    return pair_records(pairs, f"{title} in {base}"), LABEL_MAP


def images(root: Path, *, split: str) -> list[Path]:
    """The images of a list of ``ImageSets/Segmentation``, with or without label maps.

    Raises:
        DataError: folders or the list are missing.
    """
    title = f"Pascal VOC 2012 ({split})"
    candidates = [root / name for name in ("VOCdevkit/VOC2012", "VOC2012", "voc/VOC2012", ".")]
    base = first_folder(candidates, ["JPEGImages", "ImageSets/Segmentation"], title)
    files = list(AUGMENTED_LISTS) if split == "trainaug" else [f"{split}.txt"]
    return [base / "JPEGImages" / f"{name}.jpg" for name in _listed(base, files, title)]


def _listed(base: Path, files: list[str], title: str) -> list[str]:
    """The image names of the first list that is there."""
    folder = base / "ImageSets/Segmentation"
    for file in files:
        if (folder / file).is_file():
            # SBD's form has "/JPEGImages/name.jpg /SegmentationClassAug/name.png" a line.
            lines = read_text(folder / file).splitlines()
            return [_name(line, folder / file) for line in lines if line.strip()]
    raise DataError(f"{title}: no list {' or '.join(files)} in {folder}")


def _name(line: str, path: Path) -> str:
    """The image that a line names; what follows must be its label map."""
    names = [Path(slashes(word)).stem for word in line.split()]
    if len(set(names)) > 1:
        raise DataError(f"{path}: {line.strip()!r} names an image and another one's label map")
    return names[0]


def _augmented(base: Path, title: str) -> list[str]:
    try:
        return _listed(base, list(AUGMENTED_LISTS), title)
    except DataError:
        held_out = set(_listed(base, ["val.txt"], title))
        found = image_files(base / "SegmentationClassAug", "*.png")
        return [path.stem for path in found if path.stem not in held_out]


for _split, _count in SPLITS.items():
    register_dataset(
        DatasetSpec(
            f"voc_2012_{_split}",
            CLASSES,
            COLORS,
            partial(load, split=_split),
            expected=_count,
            official=LABEL_MAP,
            longest_side=500,
            images=partial(images, split=_split),
        )
    )
