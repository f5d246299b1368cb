"""The five benchmarks in the layouts that their owners publish."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from afdcd.cli.train_net import main
from afdcd.data import DataError, get_spec, load_dataset, read_labels
from afdcd.data.coco_stuff import CLASSES, STORED_NAMES, UNUSED

from helpers import benchmark_files
from helpers.benchmark_files import BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_layout_is_found_and_every_label_is_a_class(tmp_path, name: str):
    write, train, test, classes = BENCHMARKS[name]
    write(tmp_path)
    seen = set()
    for split in (train, test):
        dataset = load_dataset(split, tmp_path)
        assert len(dataset.records) == (4 if split == train else 2)
        assert len(dataset.spec.classes) == classes
        assert "are published" in dataset.count_problem()
        for record in dataset.records:
            labels = read_labels(record["sem_seg_file_name"], dataset.label_map)
            assert labels.shape == (record["height"], record["width"])
            seen |= set(np.unique(labels).tolist())
    assert seen <= {*range(classes), 255} and len(seen) > min(classes, 60) // 2


@pytest.mark.parametrize("name", BENCHMARKS)
def test_trains_and_evaluates(tmp_path, configs, monkeypatch, name: str):
    write, train, test, classes = BENCHMARKS[name]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "benchmark"))
    write(tmp_path / "benchmark")
    words = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    words += ["DATASETS.TRAIN", f'["{train}"]', "DATASETS.TEST", f'["{test}"]']
    words += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(classes), "SOLVER.MAX_ITER", "2"]
    assert main([*words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    figures = json.loads((tmp_path / "run/results.json").read_text())["figures"][test]
    # The mean of the classes that the test images show.
    scores = [figures[f"IoU-{name}"] for name in get_spec(test).classes]
    seen = [score for score in scores if score is not None]
    assert len(scores) == classes and len(seen) > min(classes, 60) // 2
    assert figures["mIoU"] == pytest.approx(sum(seen) / len(seen))


def test_published_counts():
    counts = {
        "cityscapes_fine_sem_seg_train": 2975,
        "cityscapes_fine_sem_seg_val": 500,
        "camvid_train": 367,
        "camvid_test": 233,
        "voc_2012_trainaug": 10582,
        "voc_2012_val": 1449,
        "ade20k_sem_seg_train": 20210,
        "coco_stuff_164k_train": 118287,
        "coco_stuff_164k_val": 5000,
    }
    assert {name: get_spec(name).expected for name in counts} == counts


def test_a_wrong_count_is_said_once(tmp_path, caplog):
    benchmark_files.camvid(tmp_path)
    for index in range(3):
        (tmp_path / f"camvid/val/x{index}.png").write_bytes(
            (tmp_path / "camvid/val/0001TP_000000.png").read_bytes()
        )
        (tmp_path / f"camvid/valannot/x{index}.png").write_bytes(
            (tmp_path / "camvid/valannot/0001TP_000000.png").read_bytes()
        )
    load_dataset("camvid_val", tmp_path)
    load_dataset("camvid_val", tmp_path)
    assert caplog.text.count("camvid_val: 5 images found, but 101 are published") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cityscapes", "4 of 4 images are not 1024x2048, as published"),
        ("camvid", "4 of 4 images are not 360x480, as published"),
        ("voc", ""),
        ("ade20k", ""),
        ("coco_stuff", ""),
    ],
)
def test_published_sizes(tmp_path, name: str, said: str):
    write, train, _, _ = BENCHMARKS[name]
    dataset = load_after(write, train, tmp_path)
    assert said in dataset.size_problem() and bool(said) == bool(dataset.size_problem())
    if name in ("voc", "coco_stuff"):
        image, label = (dataset.records[1][k] for k in ("file_name", "sem_seg_file_name"))
        for path in (image, label):
            Image.fromarray(np.zeros((9, 641), np.uint8)).save(path)
        problem = load_dataset(train, tmp_path).size_problem()
        assert "1 of 4 images are not at most" in problem and f"{image} is 9x641" in problem


def test_prepared_ade20k_is_preferred(tmp_path):
    benchmark_files.ade20k(tmp_path)
    assert (
        "annotations/"
        in load_dataset("ade20k_sem_seg_val", tmp_path).records[0]["sem_seg_file_name"]
    )
    benchmark_files.ade20k(tmp_path, "annotations_detectron2")
    dataset = load_dataset("ade20k_sem_seg_val", tmp_path)
    record = dataset.records[0]
    assert "annotations_detectron2/" in record["sem_seg_file_name"]
    stored = np.array(Image.open(record["sem_seg_file_name"]))
    np.testing.assert_array_equal(
        read_labels(record["sem_seg_file_name"], dataset.label_map), stored
    )


def test_ade20k_stores_label_plus_one(tmp_path):
    label_map = load_after(benchmark_files.ade20k, "ade20k_sem_seg_val", tmp_path).label_map
    assert label_map.apply(np.array([[0, 1, 150]]), "x").tolist() == [[255, 0, 149]]
    with pytest.raises(DataError):
        label_map.apply(np.array([[151]]), "x")


def load_after(write, name, root):
    write(root)
    return load_dataset(name, root)


def test_voc_palette_index_and_border(tmp_path):
    dataset = load_after(benchmark_files.voc, "voc_2012_val", tmp_path)
    path = dataset.records[0]["sem_seg_file_name"]
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(read_labels(path, dataset.label_map), np.array(image))


def test_voc_augmented_without_a_list_is_all_but_val(tmp_path):
    benchmark_files.voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").unlink()
    names = [r["image_id"] for r in load_dataset("voc_2012_trainaug", tmp_path).records]
    assert names == ["2007_000032", "2007_000039", "2008_000002", "2008_000003"]


def test_voc_list_with_paths(tmp_path):
    benchmark_files.voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt"
    path.rename(path.with_name("train_aug.txt")).write_text(
        "/JPEGImages/2008_000003.jpg /SegmentationClassAug/2008_000003.png\n"
    )
    records = load_dataset("voc_2012_trainaug", tmp_path).records
    assert [r["image_id"] for r in records] == ["2008_000003"]


def test_voc_list_of_windows(tmp_path):
    """With a byte order mark and backslashes; another image's label map is an error."""
    benchmark_files.voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    names = path.read_text().split()
    path.write_text("\ufeff" + "\r\n".join(f".\\JPEGImages\\{name}.jpg" for name in names))
    assert [r["image_id"] for r in load_dataset("voc_2012_val", tmp_path).records] == names
    path.write_text(f"JPEGImages/{names[0]}.jpg SegmentationClass/other.png")
    with pytest.raises(DataError, match="names an image and another one's label map"):
        load_dataset("voc_2012_val", tmp_path)


def test_coco_stuff_has_171_classes_or_182_stored_values(tmp_path):
    benchmark_files.coco_stuff(tmp_path)
    few, all_ = (load_dataset(f"coco_stuff_164k{s}_val", tmp_path) for s in ("", "_182"))
    used = [v for v in range(182) if v not in UNUSED]
    assert [STORED_NAMES[v] for v in used] == list(CLASSES) and len(CLASSES) == 171
    stored = np.array([[*used, 255]])
    assert few.label_map.apply(stored, "x").tolist() == [[*range(171), 255]]
    assert all_.label_map.apply(stored, "x").tolist() == stored.tolist()
    with pytest.raises(DataError):
        few.label_map.apply(np.array([[UNUSED[0]]]), "x")


def test_coco_stuff_in_the_other_layout(tmp_path):
    dataset = load_after(
        lambda root: benchmark_files.coco_stuff(root, "annotations"),
        "coco_stuff_164k_train",
        tmp_path,
    )
    benchmark_files.coco_stuff(tmp_path / "usual")
    usual = load_dataset("coco_stuff_164k_train", tmp_path / "usual")
    for ours, theirs in zip(dataset.records, usual.records, strict=True):
        assert ours["sem_seg_file_name"].startswith(str(tmp_path / "coco/annotations"))
        labels = read_labels(ours["sem_seg_file_name"], dataset.label_map)
        np.testing.assert_array_equal(
            labels, read_labels(theirs["sem_seg_file_name"], usual.label_map)
        )


def test_cityscapes_prepared_label_maps(tmp_path):
    benchmark_files.cityscapes(tmp_path)
    benchmark_files.cityscapes(tmp_path, "labelTrainIds")
    dataset = load_dataset("cityscapes_fine_sem_seg_train", tmp_path)
    assert dataset.records[0]["sem_seg_file_name"].endswith("labelTrainIds.png")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_absent(tmp_path, name: str):
    with pytest.raises(DataError, match=r"not found\. Looked in .*; expected a folder with .*/"):
        load_dataset(BENCHMARKS[name][1], tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cityscapes", "cityscapes/gtFine"),
        ("camvid", "camvid/trainannot"),
        ("voc", "VOCdevkit/VOC2012/SegmentationClassAug"),
        ("ade20k", "ADEChallengeData2016/annotations"),
        ("coco_stuff", "coco/stuffthingmaps"),
    ],
)
def test_half_a_download(tmp_path, name: str, folder: str):
    write, train, _, _ = BENCHMARKS[name]
    write(tmp_path)
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(DataError, match="has only a part of that: it lacks"):
        load_dataset(train, tmp_path)


def test_hidden_files_are_no_images(tmp_path):
    benchmark_files.camvid(tmp_path)
    (tmp_path / "camvid/train/._0001TP_000000.png").write_bytes(b"x")
    assert len(load_dataset("camvid_train", tmp_path).records) == 4
