"""Depth maps: files, descriptions, augmentation, and the synthetic scenes'."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from afdcd.cli.register_dataset import main as register
from afdcd.data import DataError, DenseMapper, TrainingAugmentation, get_spec, load_dataset
from afdcd.data.depth import (
    DepthForm,
    DepthReader,
    DepthSpec,
    depth_size,
    read_depth,
    read_stored_depth,
)
from afdcd.data.description import DescriptionError, read_description
from afdcd.data.mapper import Draw
from afdcd.data.synthetic import depth as synthetic
from afdcd.data.synthetic.scene import CAR, PERSON, ROAD, SKY, render_scene
from afdcd.tasks import task_of
from afdcd.utils.sample_keys import UNLABELED

from helpers.depth_runs import DATA, write_images

STORED = np.array([[0, 1000, 2500], [40000, 65535, 3]])
METERS = np.array([[0, 1, 2.5], [40, 0, 0.003]], np.float32)
MILLIMETERS = DepthForm(0.001, (0.0, 65535.0))


def saved(path: Path, values: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.png", np.uint16),
        ("a.tif", np.uint16),
        ("a.tif", np.int32),
        ("a.tif", np.float32),
        ("a.npy", np.uint16),
        ("a.npy", np.float32),
        ("a.npy", np.float64),
        ("a.NPY", np.int64),
    ],
)
def test_files_of_many_kinds(tmp_path, name: str, dtype):
    path = tmp_path / name
    if path.suffix == ".NPY":
        with path.open("wb") as file:
            np.save(file, STORED.astype(dtype))
    else:
        saved(path, STORED.astype(dtype))
    depth = read_depth(path, MILLIMETERS)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, METERS, rtol=1e-6)
    assert depth_size(path) == (2, 3)


def test_values_that_are_no_depth(tmp_path):
    values = np.array([[np.nan, np.inf, -np.inf, -1, 0, 2, -9999, 1e38]], np.float32)
    depth = read_depth(saved(tmp_path / "a.npy", values), DepthForm(100.0, (2.0,)))
    assert depth.tolist() == [[0] * 8]  # the last one overflows
    depth = read_depth(saved(tmp_path / "a.npy", values), DepthForm())
    assert depth.tolist() == [[0, 0, 0, 0, 0, 2, 0, np.float32(1e38)]]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no depth map at"),
        (lambda path: path.write_bytes(b"no image"), "can't be read"),
        (lambda path: saved(path, np.zeros((2, 3, 3), np.uint8)), "mode RGB, but a depth map"),
        (lambda path: Image.new("P", (3, 2)).save(path), "mode P, but a depth map"),
        (lambda path: Image.new("L", (3, 2)).save(path, "JPEG"), "stored as JPEG"),
    ],
)
def test_images_that_are_no_depth_maps(tmp_path, write, message: str):
    path = tmp_path / "a.png"
    write(path)
    with pytest.raises(DataError, match=message):
        read_stored_depth(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 1)), r"float64 of shape \[2, 3, 1\]"),
        (np.zeros((2, 3), bool), "holds bool"),
        (np.array([[{}]], object), "can't be read as an array"),
    ],
)
def test_arrays_that_are_no_depth_maps(tmp_path, values, message: str):
    path = tmp_path / "a.npy"
    np.save(path, values)
    with pytest.raises(DataError, match=message):
        read_stored_depth(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="can't be read as an array"):
        read_stored_depth(path)


READ_EXR = """
import cv2, numpy as np
from afdcd.data.depth import DepthForm, depth_size, read_depth
cv2.imwrite("a.exr", np.array([[1.5, 0.0, 3.0]], np.float32))
assert depth_size("a.exr") == (1, 3)
assert read_depth("a.exr", DepthForm()).tolist() == [[1.5, 0.0, 3.0]]
"""


def test_openexr_where_opencv_reads_it(tmp_path):
    if not re.search(r"OpenEXR:\s+(?!NO)\S", cv2.getBuildInformation()):
        pytest.skip("this OpenCV is built without OpenEXR")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", READ_EXR],
        cwd=tmp_path,
        env={
            **os.environ,
            "OPENCV_IO_ENABLE_OPENEXR": "1",
            "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_openexr_that_opencv_does_not_read(tmp_path):
    (tmp_path / "b.exr").write_bytes(b"no picture")
    for read in (lambda path: read_depth(path, DepthForm()), depth_size):
        with pytest.raises(
            DataError, match=r"OPENCV_IO_ENABLE_OPENEXR .* convert the file to \.npy"
        ):
            read(tmp_path / "b.exr")


# --- Descriptions -----------------------------------------------------------------------------


def described(folder: Path, **labels: object) -> Path:
    write_images(folder)
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(DATA | {"labels": DATA["labels"] | labels}))
    return path


def test_a_description(tmp_path):
    path = described(tmp_path)
    dataset = load_dataset(f"{path}:train")
    spec = dataset.spec
    assert isinstance(spec, DepthSpec) and spec.task == "depth"
    assert spec.form == DepthForm(0.001, (0.0, 65535.0)) and spec.classes == ("depth",)
    assert len(dataset.records) == 6 and dataset.records[0]["height"] == 48
    assert task_of(dataset).targets() == DepthReader(spec.form)
    assert len(spec.images(tmp_path)) == 6
    for record in dataset.records:
        depth, stored = (
            task_of(dataset).targets()(record),
            cv2.imread(record["sem_seg_file_name"], cv2.IMREAD_UNCHANGED),
        )
        np.testing.assert_allclose(depth, np.where(stored == 65535, 0, stored / 1000), rtol=1e-6)
    relative = load_dataset(f"{described(tmp_path / 'b', encoding='relative_depth')}:train")
    assert relative.spec.task == "relative_depth"


def test_described_arrays(tmp_path):
    path = described(tmp_path)
    for file in (tmp_path / "depth").iterdir():
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        np.save(file.with_suffix(".npy"), np.where(stored == 65535, np.nan, stored / 1000.0))
        file.unlink()
    content = yaml.safe_load(path.read_text())
    content["labels"] = {"encoding": "depth"}
    content["files"]["label_suffix"] = ".npy"
    path.write_text(yaml.safe_dump(content))
    dataset = load_dataset(f"{path}:val")
    assert len(dataset.records) == 2 and dataset.records[0]["width"] == 64
    depth = task_of(dataset).targets()(dataset.records[0])
    assert depth[depth > 0].min() > 1.5 and depth.max() == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"encoding": "dept"}}, "encoding must be one of index, .*, depth"),
        ({"labels": {"encoding": "depth", "scale": 0}}, "scale is the metres .*; got 0"),
        ({"labels": {"encoding": "depth", "scale": "1e-3"}}, "scale is the metres .*; got '1e-3'"),
        ({"labels": {"encoding": "depth", "invalid": "none"}}, "invalid takes a stored value"),
        ({"labels": {"encoding": "depth", "scal": 1}}, "did you mean scale"),
        ({"labels": {"encoding": "depth", "mapping": {0: "a"}}}, "no key 'mapping'"),
        ({"labels": {"encoding": "depth"}, "classes": ["a"]}, "have no classes"),
        ({"labels": {"encoding": "index", "scale": 1}, "classes": ["a"]}, "no key 'scale'"),
    ],
)
def test_descriptions_that_cannot_work(tmp_path, content: dict, message: str):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(DATA | content))
    with pytest.raises(DescriptionError, match=message):
        read_description(path)


def test_register_dataset_checks_the_files(tmp_path, capsys):
    path = described(tmp_path)
    assert register([str(path)]) == 0
    said = capsys.readouterr().out
    assert "opened 6, of 6, unusable 0" in said and said.rstrip().endswith("OK")
    (tmp_path / "depth/0.png").write_bytes(b"no image")
    assert register([str(path)]) == 2
    assert "0.png" in capsys.readouterr().err


# --- Augmentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_what_is_seen_larger_is_nearer(tmp_path, monkeypatch, scale: float, flip: bool):
    """Scaled, cropped, mirrored and padded with a value that doesn't count."""
    record = load_dataset(f"{described(tmp_path)}:train").records[0]
    reader = DepthReader(MILLIMETERS)
    augmentation = TrainingAugmentation((40, 72), scales=(0.5, 2.0))
    draw = Draw(scale, 0.4, 0.7, flip)
    monkeypatch.setattr(TrainingAugmentation, "draw", lambda self, rng: draw)
    sample = DenseMapper(reader, augmentation)(record, np.random.default_rng(0))
    target = sample["sem_seg"]
    assert target.dtype == torch.float32 and target.shape == (40, 72)
    depth, crop = reader(record), augmentation.crop((48, 64), draw)
    for row in range(40):
        for column in range(72):
            y, x = crop.top + row, crop.left + (71 - column if flip else column)
            inside = y < crop.bottom and x < crop.right
            expected = depth[int(y / scale), int(x / scale)] / scale if inside else 0
            assert target[row, column].item() == pytest.approx(expected, rel=1e-6)


def test_images_without_targets_have_no_depth(tmp_path):
    record = load_dataset(f"{described(tmp_path)}:train").records[0] | {UNLABELED: True}
    mapper = DenseMapper(DepthReader(MILLIMETERS), TrainingAugmentation((32, 32)))
    target = mapper(record, np.random.default_rng(0))["sem_seg"]
    assert target.dtype == torch.float32 and (target == 0).all()


def test_decoded_files_are_read_anew_with_another_scale(tmp_path):
    record = load_dataset(f"{described(tmp_path)}:train").records[0]
    targets = []
    for scale in (0.001, 0.002, 0.001):
        mapper = DenseMapper(
            DepthReader(DepthForm(scale)), TrainingAugmentation((32, 32)), cache_dir=tmp_path / "c"
        )
        targets.append(mapper(record, np.random.default_rng(0))["sem_seg"])
    torch.testing.assert_close(2 * targets[0], targets[1])
    assert torch.equal(targets[0], targets[2])


# --- The synthetic scenes ---------------------------------------------------------------------


def test_scenes_are_those_of_the_semantic_data_set():
    for index in range(3):
        image, labels = render_scene((9, index), 48, 64)
        same, depth = synthetic.render_depth((9, index), 48, 64)
        np.testing.assert_array_equal(image, same)
        assert depth.dtype == np.float32 and depth.shape == (48, 64)
        assert (depth[labels == 255] == 0).all()
        # Fences have the label of their whole area, and the depth of their bars alone.
        open_sky = labels == SKY
        assert (depth[open_sky] == 0).all() and (depth[(labels < 5) & ~open_sky] > 0).all()


def test_the_ground_is_a_plane_and_things_stand_on_it():
    """Distances by the pinhole camera, from a scene's own rows."""
    for index in range(20):
        scene = synthetic.DepthScene(np.random.default_rng((9, index)), 96, 128)
        synthetic.draw_scene(scene)
        focal = 2.0 * scene.height
        # What a person of 1.7 m stands on is as far as makes it scale_at(row) pixels high.
        for row in (scene.horizon + 10, scene.height - 1):
            tall = 0.16 * scene.height + 0.6 * max(row - scene.horizon, 0)
            assert scene.distance_at(row) == pytest.approx(focal * 1.7 / tall)
        for row in range(scene.height):
            ground = scene.depth[row][scene.labels[row] == ROAD]
            assert np.unique(ground).size <= 1
        rows = np.flatnonzero((scene.labels == ROAD).any(1))
        first = [scene.depth[row][scene.labels[row] == ROAD][0] for row in rows]
        assert (np.diff(first) <= 0).all() and first[-1] < first[0]
        assert scene.depth.max() == np.float32(scene.distance_at(0))
        for label in (CAR, PERSON):  # each has one distance
            found = np.unique(scene.depth[scene.labels == label])
            assert found.size <= 6 and (found > 0).all()


def test_the_data_set_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SPLITS", {"train": (3, 1), "val": (2, 2)})
    dataset = load_dataset("synthetic_depth_train", tmp_path)
    assert len(dataset.records) == 3
    (folder,) = (tmp_path / "synthetic_depth").iterdir()
    stamp = folder.stat().st_mtime_ns
    assert load_dataset("synthetic_depth_train", tmp_path).records == dataset.records
    assert folder.stat().st_mtime_ns == stamp
    image, depth = synthetic.render_depth((1, 2), 96, 128)
    record = dataset.records[2]
    np.testing.assert_array_equal(cv2.imread(record["file_name"]), image)
    stored = task_of(dataset).targets()(record)
    assert np.abs(stored - depth).max() < 0.0006  # millimetres
    assert get_spec("synthetic_depth_val").classes == ("depth",)
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="2 scenes instead of 3: delete it"):
        load_dataset("synthetic_depth_train", tmp_path)
