"""The doctor: OK on a sound set-up, and each planted fault found and named."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from afdcd.commands.doctor import main
from afdcd.commands.train_net import main as train
from afdcd.data import load_dataset
from afdcd.doctor import Report
from afdcd.doctor.scores import permuted_classes
from afdcd.doctor.step import majority_miou
from afdcd.evaluation import ConfusionMatrix

import domains
from tiny_runs import DISTILLED, STUDENT, TEACHER

ROOT = Path(__file__).parents[2]
DATA = {
    "classes": [{"name": n, "color": list(c)} for n, c in domains.TILE_COLORS.items()],
    "labels": {"encoding": "rgb", "ignore": [[0, 0, 0]]},
    "files": {"images": "tiles", "labels": "masks", "label_suffix": "_mask.png"},
    "splits": {"train": {"share": 0.75}, "val": {"share": 0.25}},
}


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    """Data, configs and a teacher that was trained a little."""
    folder = tmp_path_factory.mktemp("sound")
    domains.write_aerial(folder, 16)
    student = copy.deepcopy(STUDENT)
    student["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] = 3
    student["DATASETS"] = {"TRAIN": ["data.yaml:train"], "TEST": ["data.yaml:val"]}
    distilled = copy.deepcopy(DISTILLED)
    # The published form's weights would be far too small for so small a map.
    distilled["MODEL"]["AFDCD"] |= {"REDUCTION": "mean", "RECONSTRUCTION": {"WEIGHT": 1.0}}
    distilled["MODEL"]["DISTILLER"]["TEACHER"]["WEIGHTS"] = str(folder / "teacher.pth")
    files = {"data": DATA, "student": student, "teacher": TEACHER, "distilled": distilled}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    words = ["--runtime", "embedded", "--config-file", str(folder / "teacher.yaml")]
    words += ["SOLVER.MAX_ITER", "300", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.BASE_LR", "0.05"]
    words += [
        "SOLVER.CHECKPOINT_PERIOD",
        "0",
        "INPUT.SCALE_CROP.SCALES",
        "[1.0,1.0]",
        "INPUT.SCALE_CROP.SIZE",
        "[48,64]",
    ]
    assert train([*words, "OUTPUT_DIR", str(folder / "run")]) == 0
    (folder / "run/student_final.pth").rename(folder / "teacher.pth")
    shutil.rmtree(folder / "run")
    return folder


class Case:
    """A copy of the sound set-up to plant a fault in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words: list[str] = []

    def change(self, file: str, **content: Any) -> None:
        """Merge keys into a YAML file."""
        path = self.folder / f"{file}.yaml"

        def merge(below: dict, above: dict) -> dict:
            for key, value in above.items():
                inner = isinstance(value, dict) and isinstance(below.get(key), dict)
                below[key] = merge(below[key], value) if inner else value
            return below

        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), content)))

    def override(self, *words: str) -> None:
        self.words += words

    @property
    def images(self) -> list[Path]:
        return sorted((self.folder / "tiles").rglob("*.jpg"))

    @property
    def masks(self) -> list[Path]:
        return sorted((self.folder / "masks").rglob("*.png"))

    def weights(self, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
        path = self.folder / "teacher.pth"
        content = torch.load(path, weights_only=True)
        edit(content.get("model", content))
        torch.save(content, path)


@pytest.fixture
def case(sound, tmp_path) -> Case:
    folder = tmp_path / "setup"
    shutil.copytree(sound, folder)
    path = folder / "distilled.yaml"
    path.write_text(path.read_text().replace(str(sound), str(folder)))
    return Case(folder)


def examine(case: Case, capsys, config: str = "distilled") -> dict[str, Any]:
    words = ["--json", "--runtime", "embedded", "--config-file"]
    code = main(
        [
            *words,
            str(case.folder / f"{config}.yaml"),
            *("OUTPUT_DIR", str(case.folder / "out")),
            *case.words,
        ]
    )
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["ok"] else 1)
    return report


def test_sound_set_up(case, capsys):
    report = examine(case, capsys)
    assert report["fix"] == [] and report["ok"]
    facts = report["facts"]
    assert facts["tap of the student: backbone.res5"]["stride"] == 8
    assert facts["patch grid"]["covers"] == [4, 4]
    assert set(facts["losses"]) >= {"loss_sem_seg", "loss_logit_kd", "loss_reconstruction"}
    norms = facts["gradient norms at the student's tap"]
    assert norms["loss_sem_seg"] > 0 and norms["loss_contrast"] > 0
    assert facts["time"]["s/step"] > 0 and facts["memory"]["a step needs at least, GiB"] > 0
    (miou, baseline) = facts["teacher"].values()
    assert miou > 2 * baseline, facts
    assert not (case.folder / "out").exists()  # a dry run leaves nothing behind


def test_student_alone_and_text(case, capsys):
    words = ["--runtime", "embedded", "--config-file", str(case.folder / "student.yaml")]
    assert main([*words, "OUTPUT_DIR", str(case.folder / "out")]) == 0
    assert capsys.readouterr().out.rstrip().endswith("OK")


# --- faults ---------------------------------------------------------------------------------


def swap_classes(case: Case) -> None:
    def edit(entries: dict[str, torch.Tensor]) -> None:
        for name, value in entries.items():
            if "predictor" in name and "aux" not in name:
                entries[name] = value[[1, 2, 0]]

    case.weights(edit)


def randomize(entries: dict[str, torch.Tensor]) -> None:
    for name, value in entries.items():
        if name.endswith("predictor.weight"):
            value.zero_()
        if name.endswith("predictor.bias"):
            value[:] = torch.arange(len(value))


def spoil(entries: dict[str, torch.Tensor]) -> None:
    next(v for n, v in entries.items() if n.endswith("conv1.weight")).fill_(float("nan"))


def rename_first(case: Case) -> None:
    case.change("data", classes=[{"name": n, "color": "#010101"} for n in "ab"])


def repaint(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def never_water(case: Case) -> None:
    for path in case.masks:
        repaint(path, lambda m: np.where((m == (0, 0, 200)).all(-1, keepdims=True), 0, m))


def rarely_water(case: Case) -> None:
    never_water(case)
    path = load_dataset(f"{case.folder}/data.yaml:train").records[0]["sem_seg_file_name"]
    mask = np.array(Image.open(path))
    mask[0, 0] = (0, 0, 200)
    Image.fromarray(mask).save(path)


def other_classes_of_teacher(case: Case) -> None:
    shutil.copy(case.folder / "data.yaml", case.folder / "other.yaml")
    case.change("other", classes=[DATA["classes"][k] for k in (2, 0, 1)])
    case.change("teacher", DATASETS={"TRAIN": ["other.yaml:train"]})


def both_splits(case: Case) -> None:
    case.change("data", splits={"train": {"share": None}, "val": {"share": None}})


def without(path: Path) -> None:
    path.unlink()


def camvid_of_three(case: Case, monkeypatch) -> None:
    from camvid_files import write_camvid

    write_camvid(case.folder / "root/camvid", train=3, val=2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(case.folder / "root"))
    case.override("DATASETS.TRAIN", "['camvid_train']", "DATASETS.TEST", "['camvid_val']")


D = "MODEL.DISTILLER."
# Fault -> (how it is planted, kind of the finding, words in it).
FAULTS: dict[str, tuple[Callable[[Case], Any], str, str]] = {
    "no config": (lambda c: (c.folder / "distilled.yaml").unlink(), "config", "no config file"),
    "config is no YAML": (
        lambda c: (c.folder / "distilled.yaml").write_text("A: [\x00"),
        "config",
        "no valid YAML",
    ),
    "unknown key": (lambda c: c.change("distilled", SOLVR={"A": 1}), "config", "SOLVR"),
    "wrong type": (lambda c: c.override("SOLVER.MAX_ITER", "many"), "config", "MAX_ITER"),
    "batch of one": (lambda c: c.override("SOLVER.IMS_PER_BATCH", "1"), "config", "at least 2"),
    "no iterations": (lambda c: c.override("SOLVER.MAX_ITER", "0"), "config", "MAX_ITER"),
    "learning rate": (lambda c: c.override("SOLVER.BASE_LR", "20.0"), "learning-rate", "BASE_LR"),
    "no deviation": (
        lambda c: c.override("MODEL.PIXEL_STD", "[1.0,0.0,1.0]"),
        "normalization",
        "PIXEL_STD",
    ),
    "scales": (
        lambda c: c.override("INPUT.SCALE_CROP.SCALES", "[2.0,0.5]"),
        "config",
        "smallest, largest",
    ),
    "data set typo": (
        lambda c: c.override("DATASETS.TRAIN", "['camvid_trian']"),
        "dataset",
        "did you mean camvid_train",
    ),
    "no such split": (
        lambda c: (
            c.change("data", splits={"train": {"share": 1.0}, "val": {"share": None}})
            or c.change("distilled", DATASETS={"TEST": ["data.yaml:test"]})
        ),
        "dataset",
        "no split 'test'",
    ),
    "no images": (
        lambda c: shutil.rmtree(c.folder / "tiles"),
        "dataset",
        "no folder",
    ),
    "missing label map": (lambda c: c.masks[3].unlink(), "dataset", "images have no label map"),
    "corrupt image": (lambda c: c.images[2].write_bytes(b"no"), "file", "can't be read"),
    "truncated label map": (
        lambda c: c.masks[5].write_bytes(c.masks[5].read_bytes()[:99]),
        "file",
        "can't be read as a label map",
    ),
    "sizes differ": (
        lambda c: Image.new("RGB", (9, 9)).save(c.images[1]),
        "file",
        "is 9x9 but its label map",
    ),
    "undefined colour": (
        lambda c: repaint(c.masks[0], lambda m: np.where(m == 200, 199, m)),
        "file",
        "doesn't define: ",
    ),
    "grey label map": (
        lambda c: Image.new("L", (64, 48)).save(c.masks[0]),
        "file",
        "mode L",
    ),
    "absent class": (never_water, "absent-class", "never shows water"),
    "rare class": (rarely_water, "rare-class", "water"),
    "nothing labelled": (
        lambda c: [repaint(path, np.zeros_like) for path in c.masks],
        "unlabelled",
        "show no class at all",
    ),
    "black images": (
        lambda c: [repaint(path, lambda i: i // 99) for path in c.images],
        "flat-image",
        "show one colour",
    ),
    "train and test share images": (both_splits, "leak", "share 16 images"),
    "images smaller than the crop": (
        lambda c: c.override("INPUT.SCALE_CROP.SIZE", "[128,160]"),
        "small-images",
        "smaller than the crop",
    ),
    "number of classes": (
        lambda c: c.override("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"),
        "classes",
        "NUM_CLASSES is 4",
    ),
    "teacher's classes in another order": (
        other_classes_of_teacher,
        "class-order",
        "differ in order: 0 is field and building",
    ),
    "teacher's logits in another order": (swap_classes, "class-order", "in another order"),
    "untrained teacher": (
        lambda c: c.weights(randomize),
        "teacher",
        "no better than one class everywhere",
    ),
    "no teacher config": (
        lambda c: (c.folder / "teacher.yaml").unlink(),
        "teacher",
        "no config file",
    ),
    "no teacher weights": (
        lambda c: (c.folder / "teacher.pth").unlink(),
        "weights",
        "no checkpoint at",
    ),
    "truncated weights": (
        lambda c: (c.folder / "teacher.pth").write_bytes(b"PK" * 50),
        "weights",
        "teacher.pth",
    ),
    "weights of another network": (
        lambda c: c.change("teacher", MODEL={"RESNETS": {"RES2_OUT_CHANNELS": 16}}),
        "weights",
        "of another shape",
    ),
    "weights of no model": (
        lambda c: torch.save({"model": {"a": torch.zeros(2)}}, c.folder / "teacher.pth"),
        "weights",
        "names of no known codebase",
    ),
    "weights not finite": (lambda c: c.weights(spoil), "weights", "not finite"),
    "student's weights missing": (
        lambda c: c.override("MODEL.WEIGHTS", "none.pth"),
        "weights",
        "MODEL.WEIGHTS: no checkpoint",
    ),
    "no such tap": (
        lambda c: c.override(f"{D}FEATURE_TAPS", "[['backbone.res6','backbone.res5']]"),
        "tap",
        "no module 'backbone.res6'",
    ),
    "tap in the teacher": (
        lambda c: c.override(f"{D}FEATURE_TAPS", "[['backbone.res5','backbone.rse5']]"),
        "tap",
        "did you mean backbone.res5",
    ),
    "tap of a container": (
        lambda c: c.override(f"{D}FEATURE_TAPS", "[['backbone','backbone.res5']]"),
        "tap",
        "takes one feature map",
    ),
    "one tap": (lambda c: c.override(f"{D}FEATURE_TAPS", "[['backbone.res5']]"), "tap", "pair"),
    "unknown loss": (lambda c: c.override(f"{D}LOSSES", "['afdcdd']"), "tap", "afdcdd"),
    "patch larger than the map": (
        lambda c: c.override("MODEL.AFDCD.CONTRAST.PATCH", "[8,8]"),
        "tap",
        "holds no patch of 8x8",
    ),
    "groups don't divide": (
        lambda c: c.override("MODEL.AFDCD.CONTRAST.GROUPS", "7"),
        "tap",
        "7",
    ),
    "temperature": (
        lambda c: c.override("MODEL.AFDCD.CONTRAST.TEMPERATURE", "0.0"),
        "tap",
        "temperature",
    ),
    "weight far off": (
        lambda c: c.override("MODEL.AFDCD.RECONSTRUCTION.WEIGHT", "1e6"),
        "loss-weight",
        "loss_reconstruction's gradient",
    ),
    "weight not finite": (
        lambda c: c.override("MODEL.LOGIT_KD.WEIGHT", "1e39"),
        "non-finite",
        "loss_logit_kd",
    ),
    "too little memory": (
        lambda c: c.override("SOLVER.IMS_PER_BATCH", "10000000"),
        "memory",
        "GiB",
    ),
    "output is a file": (
        lambda c: c.override("OUTPUT_DIR", str(c.folder / "data.yaml")),
        "output",
        "data.yaml is a file",
    ),
    "output is taken": (
        lambda c: (
            (c.folder / "out").mkdir(),
            (c.folder / "out/last_checkpoint").write_text("model_final.pth"),
        ),
        "output",
        "already holds a run",
    ),
    "broken description": (rename_first, "dataset", "one colour"),
}
REMARKS = {"rare class"}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(case, capsys, fault: str):
    plant, kind, words = FAULTS[fault]
    plant(case)
    report = examine(case, capsys)
    found = report["notes" if fault in REMARKS else "fix"]
    assert any(f["kind"] == kind and words in f["text"] for f in found), found
    assert report["ok"] == (fault in REMARKS)


def test_incomplete_benchmark(case, capsys, monkeypatch):
    camvid_of_three(case, monkeypatch)
    case.override("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "11")
    report = examine(case, capsys, "student")
    texts = [f["text"] for f in report["fix"] if f["kind"] == "incomplete"]
    assert "camvid_train: 3 images found, but 367 are published" in texts


def test_the_command_never_shows_a_traceback(case):
    (case.folder / "teacher.pth").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "tools/doctor.py", "--config-file", str(case.folder / "distilled.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "To fix (" in done.stdout and "teacher.pth" in done.stdout


def test_suggested_weight_balances_the_gradients(case, capsys):
    case.override("MODEL.AFDCD.RECONSTRUCTION.WEIGHT", "1e6")
    report = examine(case, capsys)
    norms = report["facts"]["gradient norms at the student's tap"]
    ratio = norms["loss_reconstruction"] / norms["loss_sem_seg"]
    (text,) = [f["text"] for f in report["fix"] if f["kind"] == "loss-weight"]
    assert f"multiplied by {1 / ratio:.1g} would make them equal" in text


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(max_size=80), which=st.sampled_from(["distilled.yaml", "data.yaml"]))
def test_fuzzed_configs_and_descriptions(sound, tmp_path_factory, capsys, data, which):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_setup"
    if not folder.is_dir():
        shutil.copytree(sound, folder)
    kept = (folder / which).read_bytes()
    (folder / which).write_bytes(data)
    try:
        assert main(["--json", "--config-file", str(folder / "distilled.yaml")]) == 1
    finally:
        (folder / which).write_bytes(kept)
    assert json.loads(capsys.readouterr().out)["fix"]


def test_majority_worked_by_hand():
    # 60 of 100 pixels; IoU of the commonest class 0.6, of the other two 0.
    assert majority_miou(np.array([60, 30, 10, 0])) == pytest.approx(20.0)
    assert majority_miou(np.zeros(3, int)) == 0.0


@pytest.mark.parametrize(
    ("counts", "moved"),
    [
        ([[9, 1, 0], [0, 9, 1], [1, 0, 9]], []),
        ([[1, 9, 0], [9, 1, 0], [0, 0, 9]], [(0, 1), (1, 0)]),
        ([[9, 0, 0], [9, 0, 0], [9, 0, 0]], []),  # one class everywhere
        ([[0, 9, 0], [0, 0, 9], [9, 0, 0]], [(0, 1), (1, 2), (2, 0)]),
        ([[0, 0, 0], [0, 9, 0], [0, 0, 9]], []),
    ],
)
def test_permuted_classes(counts, moved):
    confusion = ConfusionMatrix(3)
    confusion.counts = np.array(counts)
    assert permuted_classes(confusion) == moved


def test_report_in_json_has_no_infinities():
    report = Report()
    report.facts["x"] = {"a": float("inf"), "b": float("nan"), "c": [1.5]}
    assert json.loads(report.json())["facts"]["x"] == {"a": None, "b": None, "c": [1.5]}
