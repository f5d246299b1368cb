"""Decoded files on disk, and the loading benchmark's ways against each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from afdcd.benchmark.loading import MEAN, draw_files, plain_sample
from afdcd.cli.benchmark_loading import main
from afdcd.data import DataError, DenseMapper, TrainingAugmentation
from afdcd.data.cityscapes import ID_MAP, TRAIN_ID_MAP
from afdcd.data.targets import LabelReader
from afdcd.models.segmentor import PIXEL_MEAN


@pytest.fixture
def record(tmp_path):
    (record,) = draw_files(tmp_path, 1, (60, 90), "png")
    return record


def mapper(tmp_path, cached: bool = True, label_map=ID_MAP, **settings) -> DenseMapper:
    augmentation = TrainingAugmentation((40, 50), pad_value=PIXEL_MEAN)
    folder = tmp_path / "cache" if cached else ""
    return DenseMapper(LabelReader(label_map), augmentation, cache_dir=folder, **settings)


def same(first, second) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "sem_seg"))


def test_same_samples_as_without(record, tmp_path):
    for seed in range(12):
        plain = mapper(tmp_path, cached=False)(record, np.random.default_rng(seed))
        for _ in range(2):  # written, read
            assert same(plain, mapper(tmp_path)(record, np.random.default_rng(seed)))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_all_ways_agree_within_one_grey_level(record, tmp_path):
    for seed in range(40):
        ours = mapper(tmp_path)(record, np.random.default_rng(seed))
        image, labels = plain_sample(
            record, ID_MAP, mapper(tmp_path).augmentation, np.random.default_rng(seed)
        )
        assert torch.equal(labels, ours["sem_seg"])
        normalized = ours["image"] - torch.from_numpy(MEAN)[:, None, None]
        assert (normalized - image).abs().max() <= 1


def test_changed_files_and_settings_are_read_anew(record, tmp_path):
    rng = np.random.default_rng
    before = mapper(tmp_path)(record, rng(0))
    (tmp_path / "other").mkdir()
    (other,) = draw_files(tmp_path / "other", 1, (70, 90), "png")
    for key in ("file_name", "sem_seg_file_name"):
        Path(other[key]).replace(record[key])
    after = mapper(tmp_path)(record, rng(0))
    assert not same(before, after)
    assert same(after, mapper(tmp_path, cached=False)(record, rng(0)))
    rgb = mapper(tmp_path, image_format="RGB")(record, rng(0))
    # Padding has the given colour in either order.
    assert torch.equal(rgb["sem_seg"], after["sem_seg"]) and not same(rgb, after)
    with pytest.raises(DataError, match="doesn't define"):
        mapper(tmp_path, label_map=TRAIN_ID_MAP)(record, rng(0))


def test_broken_entries_are_made_anew(record, tmp_path):
    before = mapper(tmp_path)(record, np.random.default_rng(0))
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:200])
    assert same(before, mapper(tmp_path)(record, np.random.default_rng(0)))


def test_a_folder_that_cannot_be_written(record, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"CACHE_DIR .* can't be written"):
        mapper(tmp_path)(record, np.random.default_rng(0))


def test_the_benchmark_command(capsys):
    words = ["--size", "64", "96", "--crop", "32", "48", "--files", "2", "--samples", "3"]
    assert main([*words, "--json"]) == 0
    rates = json.loads(capsys.readouterr().out)
    assert list(rates) == ["plain", "mapper", "mapper, decoded files"]
    assert all(rate > 0 for rate in rates.values())
    assert main(["--size", "0", "1"]) == 2
