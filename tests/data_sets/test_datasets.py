"""Data sets by name and the layouts of their files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from afdcd.data import DataError, dataset_names, get_spec, load_dataset
from afdcd.data.cityscapes import IDS

from helpers.camvid_files import write_camvid


def test_records_have_detectron2s_keys(tmp_path):
    write_camvid(tmp_path / "camvid", train=3, val=2)
    dataset = load_dataset("camvid_train", tmp_path)
    assert len(dataset.records) == 3
    record = dataset.records[0]
    assert set(record) == {"file_name", "sem_seg_file_name", "height", "width", "image_id"}
    assert (record["height"], record["width"]) == (48, 64)
    assert record["sem_seg_file_name"].endswith("trainannot/00000.png")


@pytest.mark.parametrize("folder", ["camvid", "CamVid", "."])
def test_camvid_folders(tmp_path, folder: str):
    write_camvid(tmp_path / folder, train=2, val=1, test=1)
    counts = {s: len(load_dataset(f"camvid_{s}", tmp_path).records) for s in ("val", "test")}
    assert counts == {"val": 1, "test": 1}
    assert len(load_dataset("camvid_trainval", tmp_path).records) == 3


def test_root_comes_from_the_environment(tmp_path, monkeypatch):
    write_camvid(tmp_path / "camvid", train=1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert len(load_dataset("camvid_train").records) == 1


def test_absent_folder_says_where_and_what(tmp_path):
    with pytest.raises(DataError) as error:
        load_dataset("cityscapes_fine_sem_seg_train", tmp_path)
    message = str(error.value)
    assert str(tmp_path / "cityscapes") in message
    assert "leftImg8bit/train/ and gtFine/train/" in message
    assert "DETECTRON2_DATASETS" in message


def test_missing_label_map(tmp_path):
    write_camvid(tmp_path / "camvid", train=3)
    (tmp_path / "camvid/trainannot/00001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no label map; .*train/00001.png"):
        load_dataset("camvid_train", tmp_path)


def test_empty_folder(tmp_path):
    write_camvid(tmp_path / "camvid", train=1)
    (tmp_path / "camvid/train/00000.png").unlink()
    with pytest.raises(DataError, match="no images found"):
        load_dataset("camvid_train", tmp_path)


def test_unknown_name_lists_near_ones():
    with pytest.raises(KeyError, match="did you mean camvid_train"):
        get_spec("camvid_trian")


def test_every_data_set_has_a_colour_for_each_class():
    for name in dataset_names():
        spec = get_spec(name)
        assert len(spec.classes) == len(spec.colors) == len(set(spec.classes))


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_raw_and_prepared(tmp_path, kind: str):
    city = "aachen"
    for split in ("train", "val"):
        images = tmp_path / f"cityscapes/leftImg8bit/{split}/{city}"
        labels = tmp_path / f"cityscapes/gtFine/{split}/{city}"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        stored = np.array([[*IDS, 0, 255]], np.uint8)
        if kind == "labelTrainIds":
            stored = np.array([[*range(19), 255, 255]], np.uint8)
        Image.new("RGB", (21, 1)).save(images / f"{city}_000000_000019_leftImg8bit.png")
        Image.fromarray(stored).save(labels / f"{city}_000000_000019_gtFine_{kind}.png")
    dataset = load_dataset("cityscapes_fine_sem_seg_val", tmp_path)
    path = dataset.records[0]["sem_seg_file_name"]
    assert path.endswith(f"{kind}.png")
    labels = dataset.label_map.apply(np.array(Image.open(path)), path)
    assert labels.tolist() == [[*range(19), 255, 255]]


def test_synthetic_scenes_are_drawn_once_and_whole(tmp_path, monkeypatch):
    from afdcd.data.synthetic import dataset as synthetic

    monkeypatch.setattr(synthetic, "SPLITS", {"train": (3, 1), "val": (2, 2)})
    first = load_dataset("synthetic_scenes_train", tmp_path)
    assert len(first.records) == 3
    stamp = (tmp_path / "synthetic_scenes").stat().st_mtime_ns
    assert load_dataset("synthetic_scenes_train", tmp_path).records == first.records
    assert (tmp_path / "synthetic_scenes").stat().st_mtime_ns == stamp
    (folder,) = (tmp_path / "synthetic_scenes").iterdir()
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="2 scenes instead of 3: delete it"):
        load_dataset("synthetic_scenes_train", tmp_path)
    shutil.rmtree(folder)
    assert len(load_dataset("synthetic_scenes_train", tmp_path).records) == 3
