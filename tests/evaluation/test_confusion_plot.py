"""The confusion matrix's picture and table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from afdcd.cli.train_net import main
from afdcd.evaluation.confusion_plot import confusion_figure, write_confusion


def test_cells_are_darker_for_more():
    counts = np.array([[90, 10, 0], [0, 50, 50], [0, 0, 0]])
    figure = confusion_figure(counts, ["a", "b$c$", "c"])
    (image,) = figure.axes[0].images
    colors = image.to_rgba(image.get_array())[..., :3].sum(-1)
    assert colors[0, 0] < colors[1, 1] == colors[1, 2] < colors[0, 1] < colors[0, 2]
    red, green, blue = image.to_rgba(image.get_array())[2, :, :3].T
    assert (red == green).all() and (green == blue).all()  # class c has no pixels
    # At (column, row).
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "90", (1, 0): "10", (1, 1): "50", (2, 1): "50"}
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a", "b$c$", "c"]


def test_many_classes_stay_small(tmp_path):
    write_confusion(tmp_path, "many", np.eye(171, dtype=int), ["n"] * 171)
    picture = cv2.imread(str(tmp_path / "confusion_many.png"))
    assert picture is not None and max(picture.shape) < 1200
    with pytest.raises(ValueError, match="counts must be"):
        confusion_figure(np.eye(3), ["a"])


def test_files(tmp_path):
    write_confusion(tmp_path / "new", "/some/where/data.yaml:val", np.array([[3, 1], [0, 2]]), "ab")
    picture = cv2.imread(str(tmp_path / "new/confusion_data.yaml_val.png"))
    write_confusion(tmp_path / "other", "data.yaml:val", np.array([[1, 3], [0, 2]]), "ab")
    other = cv2.imread(str(tmp_path / "other/confusion_data.yaml_val.png"))
    assert picture.shape == other.shape and (picture != other).any()
    with open(tmp_path / "new/confusion_data.yaml_val.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["true \\ predicted", "a", "b"], ["a", "3", "1"], ["b", "0", "2"]]


@pytest.mark.slow
def test_nothing_that_does_not_draw_loads_matplotlib():
    code = "import afdcd.cli.train_net, afdcd.cli.benchmark, afdcd.cli.compare, sys\n"
    code += "print([name for name in ('matplotlib', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
