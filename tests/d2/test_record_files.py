"""Files that Detectron2's mapper would misread, or fail on in the midst of a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as utils

from afdcd.cli.train_net import main
from afdcd.d2 import record_files
from afdcd.d2.checks import catalog_problems
from afdcd.d2.config import get_cfg
from afdcd.d2.record_files import file_problems, record_problems

NAME = "misread"


class Labels:
    """A data set of two images of 6x8 with labels 0 to 2, and 255."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cfg = get_cfg()
        self.cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
        self.records = []
        for index in range(2):
            image, label = folder / f"{index}.jpg", folder / f"{index}.png"
            Image.new("RGB", (8, 6), (9, 9, 9)).save(image)
            self.records.append({"file_name": str(image), "height": 6, "width": 8})
            self.records[-1] |= {"image_id": index, "sem_seg_file_name": str(label)}
            self.write(np.array([[0, 1, 2, 255]], np.uint8).repeat(6, 0).repeat(2, 1), index)

    def write(self, labels: np.ndarray, index: int = 1) -> None:
        Image.fromarray(labels).save(self.records[index]["sem_seg_file_name"])

    def problems(self) -> list[str]:
        found = record_problems(self.cfg, NAME, "DATASETS.TRAIN", None)
        assert all(kind == "file" for kind, _ in found)
        return [text for _, text in found]


@pytest.fixture
def labels(tmp_path):
    made = Labels(tmp_path)
    DatasetCatalog.register(NAME, lambda: made.records)
    MetadataCatalog.get(NAME).set(stuff_classes=["a", "b", "c"], evaluator_type="sem_seg")
    yield made
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_sound(labels):
    assert labels.problems() == []


def test_labels_beyond_the_classes(labels):
    wrong = np.zeros((6, 8), np.uint8)
    wrong[0, :3] = 3, 254, 3
    labels.write(wrong)
    (text,) = labels.problems()
    assert "1.png holds the labels 3, 254, but MODEL.SEM_SEG_HEAD.NUM_CLASSES is 3" in text
    labels.cfg.MODEL.META_ARCHITECTURE = "Distiller"
    labels.cfg.MODEL.DISTILLER.STUDENT = "PanopticFPN"
    assert labels.problems() == [text]
    labels.cfg.MODEL.DISTILLER.STUDENT = "GeneralizedRCNN"  # reads no label map
    assert labels.problems() == []


def test_a_palette_is_misread(labels):
    path = labels.records[1]["sem_seg_file_name"]
    picture = Image.fromarray(np.ones((6, 8), np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.save(path)
    assert (utils.read_image(path, "L") != 1).all()  # Detectron2 takes the colours' brightness
    (text,) = labels.problems()
    assert "has mode P, which Detectron2's mapper would turn into grey values" in text


def test_four_bits_are_scaled(labels):
    path = Path(labels.records[1]["sem_seg_file_name"])
    Image.fromarray(np.zeros((6, 8), np.uint8), mode="L").save(path, bits=4)
    with Image.open(path) as image:
        assert "L;4" in str(image.tile)
    (text,) = labels.problems()
    assert "has grey values of 0 to 15, which Detectron2's mapper would scale to 0 to 255" in text


def test_lossy_formats(labels, tmp_path):
    """Of label maps and of maps of panoptic segments, whatever they are called."""
    Image.new("L", (8, 6)).save(labels.records[0]["sem_seg_file_name"], "JPEG")
    segments = tmp_path / "segments.png"
    Image.new("RGB", (8, 6)).save(segments, "JPEG")
    labels.records[1]["pan_seg_file_name"] = str(segments)
    found = labels.problems()
    assert len(found) == 2 and all("is stored as JPEG" in text for text in found)
    segments.write_bytes(b"nothing")
    assert "can't be read as a label map" in labels.problems()[1]


def test_a_colour_picture_and_another_size(labels):
    labels.write(np.zeros((6, 8, 3), np.uint8), 0)
    labels.write(np.zeros((5, 8), np.uint8), 1)
    first, second = labels.problems()
    assert "0.png has mode RGB" in first
    assert "1.jpg is 6x8 but its label map" in second and "is 5x8" in second


def test_missing_and_broken(labels):
    Path(labels.records[0]["sem_seg_file_name"]).unlink()
    Path(labels.records[1]["sem_seg_file_name"]).write_bytes(b"nothing")
    first, second = labels.problems()
    assert "should have the label map" in first and "can't be read as a label map" in second


def test_an_image_that_is_turned_when_read(labels):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = labels.records[0]["file_name"]
    Image.new("RGB", (6, 8), (9, 9, 9)).save(path, exif=exif)
    assert utils.read_image(path, "BGR").shape == (6, 8, 3)
    assert labels.problems() == []


def test_a_photo_that_is_turned_without_its_label_map(labels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(labels.records[0]["file_name"], exif=exif)
    del labels.records[0]["height"], labels.records[0]["width"]
    (text,) = labels.problems()
    assert "is 8x6 but its label map" in text and "turned by its EXIF data (orientation 6)" in text


def test_truncated_and_damaged_photos(labels, monkeypatch):
    """Damage is wrong of one's own data; of others' the file is named."""
    path = Path(labels.records[0]["file_name"])
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((8, 6)).save(path, quality=100)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "can't be read as an image: is it truncated?" in labels.problems()[0]
    monkeypatch.setattr(record_files, "examine_image", lambda path: (None, f"{path} is damaged"))
    path.write_bytes(whole)
    said: list[str] = []
    monkeypatch.setattr(record_files.logger, "warning", lambda _, text: said.append(text))
    assert labels.problems() == [] and f"{path} is damaged" in said
    monkeypatch.setattr(record_files, "is_own_in_catalog", lambda name: True)
    monkeypatch.setattr(record_files, "get_spec", lambda name: SimpleNamespace(expected=None))
    assert labels.problems()[0] == f"{path} is damaged"


def test_files_that_must_be_fetched_are_left_alone(labels):
    labels.records[0]["file_name"] = "store://images/0.jpg"
    assert labels.problems() == []


def test_many_are_summed_up(labels):
    labels.records *= 4
    labels.write(np.full((6, 8), 9, np.uint8), 0)
    labels.write(np.full((6, 8), 9, np.uint8), 1)
    found = labels.problems()
    assert len(found) == 6 and found[-1] == f"{NAME}: 3 more records like these"


def test_nothing_to_learn(labels):
    """One class in all label maps together, or none."""
    labels.cfg.DATASETS.TRAIN = labels.cfg.DATASETS.TEST = (NAME,)
    assert file_problems(labels.cfg, "TRAIN", None) == []
    for value, words in ((1, "but the label 1, so that"), (255, "shows anything, so that")):
        for index in range(2):
            labels.write(np.array([[value, 255]], np.uint8).repeat(6, 0).repeat(4, 1), index)
        ((kind, text),) = file_problems(labels.cfg, "TRAIN", None)
        assert kind == "one-class" and words in text
        assert file_problems(labels.cfg, "TEST", None) == []
    assert "in a sample of 1 files" in file_problems(labels.cfg, "TRAIN", 1)[0][1]
    labels.write(np.zeros((6, 8), np.uint8), 0)
    labels.write(np.ones((6, 8), np.uint8), 1)
    assert file_problems(labels.cfg, "TRAIN", None) == []


def test_classes_that_are_never_shown(labels, monkeypatch):
    """Wrong of one's own data; of what others have registered nothing is known."""
    labels.cfg.DATASETS.TRAIN = (NAME,)
    labels.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    assert file_problems(labels.cfg, "TRAIN", None) == []
    monkeypatch.setattr(record_files, "is_own_in_catalog", lambda name: True)
    monkeypatch.setattr(record_files, "get_spec", lambda name: SimpleNamespace(expected=None))
    ((kind, text),) = file_problems(labels.cfg, "TRAIN", None)
    assert kind == "absent-class" and "misread never shows the labels [3]" in text
    assert file_problems(labels.cfg, "TRAIN", 1) == []


@pytest.mark.parametrize("stated", [None, 0])
def test_the_ignored_value_is_the_data_sets(labels, stated):
    """With Detectron2's mapper the metadata's, 255 where they state none."""
    if stated is not None:
        MetadataCatalog.get(NAME).ignore_label = stated
    cfg = labels.cfg
    right = 255 if stated is None else stated

    def problems(value: int, *, scored: bool = False) -> list[str]:
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = value
        return catalog_problems(cfg, [NAME], "DATASETS.TRAIN", scored=scored)

    assert problems(right) == []
    (text,) = problems(7)
    assert f"IGNORE_VALUE is 7, but the pixels of {NAME}" in text and f"label {right}" in text
    assert problems(7, scored=True) == []
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"  # has no such loss
    assert problems(7) == []


def test_training_does_not_start(labels, configs, tmp_path, capsys):
    labels.write(np.full((6, 8), 200, np.uint8))
    command = ["--runtime", "detectron2", "--num-gpus", "0"]
    command += ["--config-file", str(configs / "student.yaml")]
    words = ["INPUT.MAPPER", "detectron2", "DATASETS.TRAIN", f"['{NAME}']"]
    words += ["DATASETS.TEST", f"['{NAME}']", "OUTPUT_DIR", str(tmp_path / "run")]
    assert main([*command, *words]) == 2
    assert "holds the labels 200, but" in capsys.readouterr().err
