"""Label tables, evaluation and training items against the published release (datasets.npz)."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from afdcd.data import IGNORE, DenseMapper, TrainingAugmentation
from afdcd.data.ade20k import LABEL_MAP as ADE20K
from afdcd.data.camvid import LABEL_MAP as CAMVID
from afdcd.data.cityscapes import ID_MAP as CITYSCAPES
from afdcd.data.coco_stuff import STORED_MAP as COCO_STUFF
from afdcd.data.mapper import Draw
from afdcd.data.targets import LabelReader
from afdcd.data.voc import LABEL_MAP as VOC

from helpers import reference

VECTORS = reference.load("datasets")
MANIFEST = reference.manifest("datasets")
MEAN = np.array([104.00698793, 116.66876762, 122.67891434], dtype=np.float32)

LABEL_MAPS = {
    "citys": CITYSCAPES,
    "camvid": CAMVID,
    "voc": VOC,
    "ade20k": ADE20K,
    "coco": COCO_STUFF,
}


def test_label_tables():
    """Equal wherever the release gives a class or ignores; what it passes through we refuse."""
    for name, label_map in LABEL_MAPS.items():
        published = VECTORS[f"lut/{name}"]
        ours = label_map.table()
        for stored in range(256):
            if published[stored] == -1:
                assert ours[stored] == IGNORE, (name, stored)
            elif published[stored] < label_map.num_classes:
                assert ours[stored] == published[stored], (name, stored)
            else:
                # Byte 255 is ignored here wherever a map says so; the others are errors.
                assert ours[stored] in (-1, IGNORE), (name, stored)


def mapper_and_record(tmp_path, name: str, augmentation: TrainingAugmentation | None):
    label_map = LABEL_MAPS[name]
    stored = VECTORS["label_bytes"].copy()
    stored[label_map.table()[stored] == -1] = next(iter(label_map.ignored))
    image = VECTORS["image_bgr"]
    Image.fromarray(image[:, :, ::-1].copy()).save(tmp_path / "image.png")
    Image.fromarray(stored).save(tmp_path / "label.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "label.png"),
        "height": image.shape[0],
        "width": image.shape[1],
    }
    return DenseMapper(LabelReader(label_map), augmentation), record


def as_published(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == IGNORE, -1, labels)


def comparable(published: np.ndarray, name: str) -> np.ndarray:
    """The release's labels, with what it passes through instead of refusing as ignored."""
    return np.where(published >= LABEL_MAPS[name].num_classes, -1, published)


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_evaluation_items(tmp_path, name: str):
    mapper, record = mapper_and_record(tmp_path, name, None)
    sample = mapper(record)
    image = sample["image"].numpy().astype(np.float32) - MEAN[:, None, None]
    np.testing.assert_allclose(image, VECTORS[f"val/{name}/image"], atol=1e-4)
    np.testing.assert_array_equal(
        as_published(sample["sem_seg"].numpy()), comparable(VECTORS[f"val/{name}/label"], name)
    )


@pytest.mark.parametrize("case", MANIFEST["cases"])
def test_training_items(tmp_path, case: str):
    c = MANIFEST["cases"][case]
    name, scale = c["dataset"], c["scale"] or 1.0
    augmentation = TrainingAugmentation(tuple(c["crop"]), pad_value=tuple(MEAN))
    mapper, record = mapper_and_record(tmp_path, name, augmentation)
    height, width = (round(n * scale) for n in (24, 40))
    # Draws in the middle of the interval that floors to the wanted offset.
    top = (c["h_off"] + 0.5) / (max(height - c["crop"][0], 0) + 1)
    left = (c["w_off"] + 0.5) / (max(width - c["crop"][1], 0) + 1)
    fixed = Draw(scale, top, left, c["flip"])
    object.__setattr__(augmentation, "draw", lambda rng: fixed)
    sample = mapper(record, np.random.default_rng(0))
    image = sample["image"].numpy().astype(np.float32) - MEAN[:, None, None]
    np.testing.assert_allclose(image, VECTORS[f"{case}/image"], atol=1e-4)
    np.testing.assert_array_equal(
        as_published(sample["sem_seg"].numpy()), comparable(VECTORS[f"{case}/label"], name)
    )


def test_resized_sizes():
    for size, published in MANIFEST["resized_sizes_by_scale_step"].items():
        height, width = map(int, size.split("x"))
        image = np.zeros((height, width, 3), np.uint8)
        labels = np.zeros((height, width), np.uint8)
        augmentation = TrainingAugmentation((10**4, 10**4))  # a crop that shows the whole size
        for step in (0, 1, 4, 11, 15):
            scale = round(0.5 + step * 0.1, 10)
            object.__setattr__(augmentation, "crop_size", tuple(published[step]))
            _, exact = augmentation.apply(image, labels, Draw(scale, 0, 0, False))
            assert (exact != IGNORE).all(), (size, step)
            object.__setattr__(
                augmentation, "crop_size", (published[step][0] + 1, published[step][1] + 1)
            )
            _, larger = augmentation.apply(image, labels, Draw(scale, 0, 0, False))
            assert (larger[-1] == IGNORE).all() and (larger[:, -1] == IGNORE).all(), (size, step)
