"""Benchmarks, descriptions, the doctor and prediction in Detectron2's runtime."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml

pytest.importorskip("detectron2")

from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main

from helpers import domains
from helpers.benchmark_files import BENCHMARKS

DETECTRON2 = ["--runtime", "detectron2"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_train_and_evaluate(tmp_path, configs, monkeypatch, name: str):
    write, train, test, classes = BENCHMARKS[name]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "benchmark"))
    write(tmp_path / "benchmark")
    words = [*DETECTRON2, "--num-gpus", "0", "--config-file", str(configs / "student.yaml")]
    words += ["DATASETS.TRAIN", f'["{train}"]', "DATASETS.TEST", f'["{test}"]']
    words += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(classes), "SOLVER.MAX_ITER", "2"]
    assert main([*words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0


@pytest.fixture
def described(tmp_path, configs):
    """Distilled config on a described data set, beside it."""
    domains.write_aerial(configs)
    content = {
        "classes": [{"name": n, "color": list(c)} for n, c in domains.TILE_COLORS.items()],
        "labels": {"encoding": "rgb", "ignore": [[0, 0, 0]]},
        "files": {"images": "tiles", "labels": "masks", "label_suffix": "_mask.png"},
        "splits": {"train": {"share": 0.8}, "val": {"share": 0.2}},
    }
    (configs / "tiles.yaml").write_text(yaml.safe_dump(content))
    path = configs / "student.yaml"
    student = yaml.safe_load(path.read_text())
    student["DATASETS"] = {"TRAIN": ["tiles.yaml:train"], "TEST": ["tiles.yaml:val"]}
    student["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] = 3
    path.write_text(yaml.safe_dump(student))
    words = [*DETECTRON2, "--num-gpus", "0", "--config-file", str(configs / "teacher.yaml")]
    words += ["SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "teacher")]
    assert main(words) == 0
    (tmp_path / "teacher/student_final.pth").replace(tmp_path / "teacher.pth")
    return configs


def test_a_described_data_set_to_a_distilled_student(described, tmp_path, capsys):
    config = ["--config-file", str(described / "distilled.yaml")]
    out = ["OUTPUT_DIR", str(tmp_path / "run")]
    words = [*DETECTRON2, "--num-gpus", "0", *config]
    assert main([*words, *out, "TEST.CONFUSION", "True"]) == 0
    assert (tmp_path / "run/confusion_tiles.yaml_val.png").is_file()
    with open(tmp_path / "run/confusion_tiles.yaml_val.csv", newline="") as file:
        counts = np.array([row[1:] for row in csv.reader(file)][1:], int)
    figures = json.loads((tmp_path / "run/results.json").read_text())["figures"]
    accuracy = next(iter(figures.values()))["sem_seg"]["pACC"]
    assert accuracy == pytest.approx(100 * counts.trace() / counts.sum())
    student = str(tmp_path / "run/student_final.pth")
    words = [*DETECTRON2, *config, "--weights", student, "--num-gpus", "0"]
    words += ["--input", str(described / "tiles"), "--output", str(tmp_path / "predictions")]
    assert predict(words) == 0
    assert len(list((tmp_path / "predictions").rglob("*_labels.png"))) == 10


def test_the_doctor(described, tmp_path, capsys):
    words = [*DETECTRON2, "--json", "--config-file", str(described / "distilled.yaml")]
    out = ["OUTPUT_DIR", str(tmp_path / "out")]
    doctor([*words, *out])
    report = json.loads(capsys.readouterr().out)
    assert {f["kind"] for f in report["fix"]} <= {"teacher", "loss-weight"}  # hardly trained
    assert report["facts"]["tap of the student: backbone.res5"]["stride"] == 8
    assert doctor([*words, *out, "MODEL.DISTILLER.LOSSES.afdcd.TAPS", "[['backbone.x','a']]"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert any("no module 'backbone.x'" in f["text"] for f in report["fix"])
