"""The mapper: augmentation properties and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from afdcd.data import IGNORE, DataError, DenseMapper, LabelMap, TrainingAugmentation
from afdcd.data.mapper import Draw
from afdcd.data.targets import LabelReader


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose pixels tell where they are, and labels that agree with it."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([y, x, np.zeros_like(y)], axis=-1), y // 2


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    crop=st.tuples(st.integers(4, 50), st.integers(4, 50)),
    seed=st.integers(0, 1000),
)
def test_image_and_labels_stay_together(size, crop, seed):
    image, labels = coordinates(*size)
    augmentation = TrainingAugmentation(crop, scales=(1.0, 1.0), pad_value=(1.5, 2.5, 3.5))
    draw = augmentation.draw(np.random.default_rng(seed))
    out_image, out_labels = augmentation.apply(image, labels, draw)
    assert out_image.shape == (*crop, 3) and out_labels.shape == crop
    inside = out_labels != IGNORE
    np.testing.assert_array_equal(out_image[..., 0][inside] // 2, out_labels[inside])
    if not inside.all():
        assert out_image.dtype == np.float32
        np.testing.assert_array_equal(out_image[~inside], [[1.5, 2.5, 3.5]] * (~inside).sum())
    covered = min(size[0], crop[0]) * min(size[1], crop[1])
    assert inside.sum() == covered
    if not draw.flip and inside.any():
        top, left = out_image[0, 0, :2]
        room = max(size[0] - crop[0], 0), max(size[1] - crop[1], 0)
        assert 0 <= top <= room[0] and 0 <= left <= room[1]


def test_draws_cover_every_scale_and_place():
    augmentation = TrainingAugmentation((8, 8))
    rng = np.random.default_rng(0)
    draws = [augmentation.draw(rng) for _ in range(2000)]
    assert sorted({d.scale for d in draws}) == [round(0.5 + k / 10, 1) for k in range(16)]
    assert 0.45 < np.mean([d.flip for d in draws]) < 0.55
    tops = {int(d.top * 4) for d in draws}
    assert tops == {0, 1, 2, 3}


def test_flip_mirrors():
    image, labels = coordinates(6, 8)
    augmentation = TrainingAugmentation((6, 8))
    plain = augmentation.apply(image, labels, Draw(1.0, 0, 0, False))
    mirrored = augmentation.apply(image, labels, Draw(1.0, 0, 0, True))
    for a, b in zip(plain, mirrored, strict=True):
        np.testing.assert_array_equal(a[:, ::-1], b)


@pytest.fixture
def record(tmp_path) -> dict:
    image, labels = coordinates(40, 60)
    Image.fromarray(image[:, :, ::-1].copy()).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "height": 40,
        "width": 60,
        "image_id": "image",
    }


def test_sample(record):
    sample = DenseMapper(LabelReader(LabelMap(20)))(record)
    assert sample["image"].shape == (3, 40, 60) and sample["image"].dtype == torch.uint8
    assert sample["sem_seg"].shape == (40, 60) and sample["sem_seg"].dtype == torch.int64
    assert sample["image_id"] == "image"
    assert sample["image"][0, 5, 7] == 5 and sample["image"][1, 5, 7] == 7  # BGR as stored
    rgb = DenseMapper(LabelReader(LabelMap(20)), image_format="RGB")(record)
    assert torch.equal(rgb["image"], sample["image"].flip(0))


def test_short_side(record):
    sample = DenseMapper(LabelReader(LabelMap(20)), short_side=20)(record)
    assert sample["image"].shape == (3, 20, 30) and sample["sem_seg"].shape == (20, 30)
    assert (sample["height"], sample["width"]) == (40, 60)  # where predictions are wanted


def test_same_seed_same_sample_with_and_without_cache(record):
    augmentation = TrainingAugmentation((16, 16))
    plain = DenseMapper(LabelReader(LabelMap(20)), augmentation)
    cached = DenseMapper(LabelReader(LabelMap(20)), augmentation, cache_bytes=1 << 20)
    for seed in (1, 1, 2):
        a = plain(record, np.random.default_rng(seed))
        b = cached(record, np.random.default_rng(seed))
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["sem_seg"], b["sem_seg"])


def test_sizes_must_agree(record, tmp_path):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "labels.png")
    with pytest.raises(DataError, match=r"is 40x60 but its label map .* is 10x10"):
        DenseMapper(LabelReader(LabelMap(20)))(record)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="crop_size"):
        TrainingAugmentation((0, 5))
    with pytest.raises(ValueError, match="scales"):
        TrainingAugmentation((5, 5), scales=(2.0, 0.5))
    with pytest.raises(ValueError, match="BGR or RGB"):
        DenseMapper(LabelReader(LabelMap(2)), image_format="bgr")


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["png", "jpg", "bmp"]),
    which=st.sampled_from(["image", "labels"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.just(1.0) | st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_damaged_files_give_data_errors_or_defined_labels(
    tmp_path_factory, kind, which, edits, kept, seed
):
    folder = tmp_path_factory.getbasetemp()
    image, labels = coordinates(24, 30)
    paths = {"image": folder / f"damaged.{kind}", "labels": folder / "damaged_labels.png"}
    Image.fromarray(image).save(paths["image"])
    Image.fromarray(labels).save(paths["labels"])
    content = bytearray(paths[which].read_bytes())
    for place, value in edits:
        content[int(place * len(content))] = value
    paths[which].write_bytes(content[: int(kept * len(content))])
    record = {"file_name": str(paths["image"]), "sem_seg_file_name": str(paths["labels"])}
    mapper = DenseMapper(LabelReader(LabelMap(12)), TrainingAugmentation((16, 16)))
    try:
        sample = mapper(record, np.random.default_rng(seed))
    except DataError:
        return
    assert sample["image"].shape == (3, 16, 16) and sample["sem_seg"].shape == (16, 16)
    assert set(sample["sem_seg"].unique().tolist()) <= {*range(12), IGNORE}
    if which == "image":
        assert (sample["sem_seg"] != IGNORE).any()
