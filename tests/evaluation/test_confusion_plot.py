"""The confusion matrix's picture and table."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from afdcd.cli.train_net import main
from afdcd.evaluation.confusion_plot import confusion_picture, write_confusion


def test_cells_are_darker_for_more():
    counts = np.array([[90, 10, 0], [0, 50, 50], [0, 0, 0]])
    picture = confusion_picture(counts, ["a", "b", "c"])
    cells = picture[-3 * 26 :, -3 * 26 :]
    corners = cells[1::26, 1::26].astype(int).sum(-1)  # beside the numbers
    assert corners[0, 0] < corners[1, 1] == corners[1, 2] < corners[0, 1] < corners[0, 2] == 765
    assert (cells[53::26, 1::26] == 225).all()  # class c has no pixels


def test_many_classes_stay_small():
    assert max(confusion_picture(np.eye(171, dtype=int), ["n"] * 171).shape) < 1200
    with pytest.raises(ValueError, match="counts must be"):
        confusion_picture(np.eye(3), ["a"])


def test_files(tmp_path):
    write_confusion(tmp_path / "new", "/some/where/data.yaml:val", np.array([[3, 1], [0, 2]]), "ab")
    picture = cv2.imread(str(tmp_path / "new/confusion_data.yaml_val.png"))
    write_confusion(tmp_path / "other", "data.yaml:val", np.array([[1, 3], [0, 2]]), "ab")
    other = cv2.imread(str(tmp_path / "other/confusion_data.yaml_val.png"))
    assert picture.shape == other.shape and (picture != other).any()
    with open(tmp_path / "new/confusion_data.yaml_val.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["true \\ predicted", "a", "b"], ["a", "3", "1"], ["b", "0", "2"]]


def test_evaluation_draws_it_with_windows_and_scales(configs, tmp_path):
    words = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    words += ["--eval-only"]
    out = ["OUTPUT_DIR", str(tmp_path / "run"), "MODEL.WEIGHTS", str(tmp_path / "student.pth")]
    run = [*words[:-1], "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path / "first")]
    assert main(run) == 0
    (tmp_path / "first/student_final.pth").rename(tmp_path / "student.pth")
    test = ["TEST.CONFUSION", "True", "TEST.WINDOW", "[32,32]", "TEST.SCALES", "[0.75,1.0]"]
    assert main([*words, *out, *test, "TEST.FLIP", "True"]) == 0
    assert cv2.imread(str(tmp_path / "run/confusion_camvid_val.png")).ndim == 3
    with open(tmp_path / "run/confusion_camvid_val.csv", newline="") as file:
        counts = np.array([row[1:] for row in csv.reader(file)][1:], int)
    labels = [np.array(Image.open(path)) for path in (tmp_path / "data/camvid/valannot").iterdir()]
    for label in range(11):  # every labelled pixel is predicted once
        assert counts[label].sum() == sum((stored == label).sum() for stored in labels)
    figures = json.loads((tmp_path / "run/evaluation.json").read_text())["figures"]["camvid_val"]
    accuracy = 100 * counts.trace() / counts.sum()
    assert figures["sem_seg"]["pACC"] == pytest.approx(accuracy)
