"""A few small images in exactly the layout of each benchmark, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)


def block_labels(values: list[int], seed: int) -> np.ndarray:
    """Blocks of 8x8 pixels, each of one of the stored values."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(values, (SIZE[0] // 8, SIZE[1] // 8))
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


def write_pair(
    image: Path, label: Path, stored: np.ndarray, palette: list[int] | None = None
) -> None:
    """Write a label map and an image whose colours follow it."""
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.stack([stored * 11, 255 - stored * 5, stored * 3], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(image)
    written = Image.fromarray(stored)
    if palette is not None:
        written = Image.fromarray(stored, mode="P")
        written.putpalette(palette)
    written.save(label)


def cityscapes(root: Path, kind: str = "labelIds") -> None:
    values = [*range(34)] if kind == "labelIds" else [*range(19), 255]
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            city = ("aachen", "bochum")[index % 2]
            stem = f"{city}_{index:06d}_000019"
            write_pair(
                root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png",
                root / f"cityscapes/gtFine/{split}/{city}/{stem}_gtFine_{kind}.png",
                block_labels(values, index),
            )


def camvid(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for index in range(count):
            name = f"0001TP_{index:06d}.png"
            folder = root / "camvid"
            stored = block_labels([*range(12)], index)
            write_pair(folder / split / name, folder / f"{split}annot" / name, stored)


def voc(root: Path) -> None:
    folder = root / "VOCdevkit/VOC2012"
    palette = [value for k in range(256) for value in (k, 255 - k, k // 2)]
    names = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
    names["trainaug"] = [*names["train"], "2008_000002", "2008_000003"]
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, listed in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    for index, name in enumerate([*names["trainaug"], *names["val"]]):
        stored = block_labels([*range(21), 255], index)
        image = folder / f"JPEGImages/{name}.jpg"
        write_pair(image, folder / f"SegmentationClassAug/{name}.png", stored)
        if name in names["train"] + names["val"]:
            write_pair(image, folder / f"SegmentationClass/{name}.png", stored, palette)


def ade20k(root: Path, kind: str = "annotations") -> None:
    values = [*range(151)] if kind == "annotations" else [*range(150), 255]
    for split, short, count in (("training", "train", 4), ("validation", "val", 2)):
        for index in range(1, count + 1):
            name = f"ADE_{short}_{index:08d}"
            folder = root / "ADEChallengeData2016"
            write_pair(
                folder / f"images/{split}/{name}.jpg",
                folder / f"{kind}/{split}/{name}.png",
                block_labels(values, index),
            )


def coco_stuff(root: Path, layout: str = "stuffthingmaps") -> None:
    unused = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    values = [*(set(range(182)) - unused), 255]
    images = "" if layout == "stuffthingmaps" else "images/"
    for split, count in (("train2017", 4), ("val2017", 2)):
        for index in range(count):
            name = f"{index:012d}"
            write_pair(
                root / f"coco/{images}{split}/{name}.jpg",
                root / f"coco/{layout}/{split}/{name}.png",
                block_labels(values, index),
            )


# Benchmark -> (writer, training set, test set, number of classes).
BENCHMARKS: dict[str, tuple[Callable[[Path], None], str, str, int]] = {
    "cityscapes": (
        cityscapes,
        "cityscapes_fine_sem_seg_train",
        "cityscapes_fine_sem_seg_val",
        19,
    ),
    "camvid": (camvid, "camvid_train", "camvid_test", 11),
    "voc": (voc, "voc_2012_trainaug", "voc_2012_val", 21),
    "ade20k": (ade20k, "ade20k_sem_seg_train", "ade20k_sem_seg_val", 150),
    "coco_stuff": (coco_stuff, "coco_stuff_164k_train", "coco_stuff_164k_val", 171),
    "coco_stuff_182": (coco_stuff, "coco_stuff_164k_182_train", "coco_stuff_164k_182_val", 182),
}
