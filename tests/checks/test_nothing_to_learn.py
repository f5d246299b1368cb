"""Label maps that show one class, or none, or not all: binary masks among them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from afdcd.cli.doctor import main as doctor
from afdcd.cli.register_dataset import main as register
from afdcd.cli.train_net import main as train
from afdcd.data import load_dataset, read_labels
from afdcd.data.description import read_description
from afdcd.embedded.metrics import MetricsFile
from afdcd.tasks import task_of
from afdcd.utils.findings import Report


@pytest.fixture
def masks(tmp_path):
    """Write images and label maps of given stored values; returns the folder."""

    def write(*values: int, count: int = 4, folder: str = "masks") -> Path:
        for name in ("photos", folder):
            (tmp_path / name).mkdir(exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng(index)
            stored = np.resize(np.array(values, np.uint8), (40, 48))
            stored[:, :10] = np.sort(stored[:, :10], axis=0)
            picture = rng.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / f"photos/{index}.png")
            Image.fromarray(stored).save(tmp_path / f"{folder}/{index}.png")
        return tmp_path

    return write


@pytest.fixture
def said(tmp_path, capsys):
    """Describe the masks by options; returns the exit code and what was said."""

    def call(*words: str) -> tuple[int, str]:
        command = [str(tmp_path / "data.yaml"), "--images", "photos", "--labels", "masks"]
        code = register([*command, "--split", "train=0.5", "--split", "val=0.5", "--force", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


BOTH = ("--class", "bg", "--class", "fg")


def test_masks_of_0_and_255_without_a_mapping(masks, said):
    masks(0, 255)
    code, text = said(*BOTH)
    assert code == 2 and "OK." not in text
    assert "shows bg alone" in text and "50.00 % of the pixels hold 255" in text
    assert "--map 255=CLASS" in text
    code, text = said(*BOTH, "--ignore", "none")
    assert code == 2 and "label values that the data set doesn't define: 255" in text


@pytest.mark.parametrize("ignored", [[], ["--ignore", "none"]])
def test_masks_of_0_and_255_mapped(masks, said, tmp_path, ignored):
    masks(0, 255)
    code, text = said(*BOTH, "--map", "0=bg", "--map", "255=fg", *ignored)
    assert code == 0, text
    dataset = load_dataset(f"{tmp_path}/data.yaml:train")
    path = dataset.records[0]["sem_seg_file_name"]
    expected = np.array(Image.open(path)) // 255
    np.testing.assert_array_equal(read_labels(path, dataset.label_map), expected)


def test_an_explicit_ignore_conflicts_and_is_named(masks, said):
    masks(0, 255)
    code, text = said(*BOTH, "--map", "0=bg", "--map", "255=fg", "--ignore", "255")
    assert code == 2
    assert "255 has several meanings: mapping says 'fg', but it is in ignore, too" in text
    code, text = said(*BOTH, "--ignore", "none", "--ignore", "7")
    assert code == 2 and "--ignore none says that every value counts" in text
    code, text = said("--map", "255=fg")
    assert code == 2 and "--map needs the classes" in text


@pytest.mark.parametrize("ignore", [[], "none"])
def test_nothing_is_ignored(tmp_path, ignore):
    content = {"classes": ["a", "b"], "files": {"images": "i", "labels": "l"}, "splits": {"t": {}}}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(content | {"labels": {"ignore": ignore}}))
    label_map = read_description(path).label_map()
    assert label_map.ignored == frozenset()
    assert label_map.apply(np.array([[0, 1]], np.uint8), "x").tolist() == [[0, 1]]


FOUND = {
    (0, 255): ([0, 255], "255 too"),
    (7, 255): ([7, 255], "255 too"),
    (0, 1, 255): ([0, 1], "--ignore none makes 255 a class, too"),
    (0, 1): ([0, 1], "each but the ignored ones"),
}


@pytest.mark.parametrize("values", FOUND)
def test_classes_that_are_found(masks, said, tmp_path, values):
    expected, words = FOUND[values]
    masks(*values)
    code, text = said()
    assert code == 0 and words in text, text
    assert load_dataset(f"{tmp_path}/data.yaml:train").spec.classes == tuple(
        f"value_{value}" for value in expected
    )


def test_found_classes_with_an_explicit_choice(masks, said, tmp_path):
    masks(0, 1, 255)
    code, _ = said("--ignore", "none")
    assert code == 0 and len(read_description(tmp_path / "data.yaml").classes) == 3
    code, text = said("--ignore", "255", "--ignore", "1")
    assert code == 2 and "shows value_0 alone" in text


def test_a_class_that_no_training_pixel_has(masks, said):
    """Even where the test split shows it; where the training split does, all is well."""
    folder = masks(0, 1)
    words = (*BOTH, "--class", "third")
    code, text = said(*words)
    assert code == 2 and "data.yaml:train never shows third" in text
    for split, expected in (("val", 2), ("train", 0)):
        masks(0, 1)
        record = load_dataset(f"{folder}/data.yaml:{split}").records[0]
        Image.fromarray(np.full((40, 48), 2, np.uint8)).save(record["sem_seg_file_name"])
        assert said(*words)[0] == expected


def test_damaged_photos_are_named(masks, said):
    folder = masks(0, 1)
    for path in sorted((folder / "photos").iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    assert said(*BOTH)[0] == 0
    path = folder / "photos/2.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 300 :])
    code, text = said(*BOTH)
    assert code == 2 and "photos/2.jpg is damaged" in text and "Corrupt JPEG data" in text
    path.write_bytes(whole[: len(whole) // 2])
    code, text = said(*BOTH)
    assert code == 2 and "2.jpg" in text and "is it truncated, or of a kind that" in text


@pytest.fixture
def refused(configs, tmp_path, capsys):
    """Training, and the doctor, on data.yaml: what they refuse."""

    def call(*words: str) -> str:
        path = configs / "student.yaml"
        overrides = ["DATASETS.TRAIN", f"['{tmp_path}/data.yaml:train']"]
        overrides += ["DATASETS.TEST", f"['{tmp_path}/data.yaml:val']"]
        overrides += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", "OUTPUT_DIR", str(tmp_path / "run")]
        command = ["--runtime", "embedded", "--config-file", str(path), *overrides, *words]
        assert train(command) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert doctor(["--json", *command]) == 1
        found = [f["text"] for f in json.loads(capsys.readouterr().out)["fix"]]
        assert any(text in message for text in found), (found, message)
        return message

    return call


def describe(folder: Path, **labels) -> None:
    content = {
        "classes": ["bg", "fg"],
        "labels": labels,
        "files": {"images": "photos", "labels": "masks"},
        "splits": {"train": {"share": 0.5}, "val": {"share": 0.5}},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


def test_training_does_not_start_with_one_class(masks, refused):
    describe(masks(0, 255))
    message = refused()
    assert "data.yaml:train shows bg alone" in message and "50.00 % of the pixels hold" in message


def test_training_does_not_start_with_no_class(masks, refused):
    describe(masks(255))
    message = refused()
    assert "show no class at all" in message and "nothing to learn" in message


def test_a_sample_of_one_class(masks, tmp_path):
    """Is an error; that a sample lacks one of several is a remark."""
    describe(masks(0, 255, count=12))
    task = task_of(load_dataset(f"{tmp_path}/data.yaml:train"))
    report = Report()
    task.check_training_files([], limit=3, report=report)
    (finding,) = report.to_fix
    assert finding.kind == "one-class" and "(in a sample of 3 files)" in finding.text
    content = yaml.safe_load((tmp_path / "data.yaml").read_text())
    content |= {"classes": ["bg", "fg", "third"], "labels": {"mapping": {0: "bg", 255: "fg"}}}
    content["labels"]["mapping"][7] = "third"
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    task = task_of(load_dataset(f"{tmp_path}/data.yaml:train"))
    for limit in (3, None):
        report = Report()
        task.check_training_files([], limit=limit, report=report)
        (finding,) = [f for f in report.findings if f.kind == "absent-class"]
        assert finding.fix == (limit is None) and "never shows third" in finding.text
        assert ("in a sample" in finding.text) == (limit is not None)


def test_training_sets_are_judged_together(masks, tmp_path, configs, capsys):
    """One shows a class, the other the other."""
    describe(masks(0))
    describe(masks(1, folder="others"))
    content = yaml.safe_load((tmp_path / "data.yaml").read_text())
    content["files"]["labels"] = "others"
    content["splits"] = {"train": {"share": 0.5}, "val": {"share": 0.5}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    words = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    words += ["DATASETS.TEST", f"['{tmp_path}/data.yaml:val']", "SOLVER.MAX_ITER", "1"]
    words += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    one, both = (
        str([f"{tmp_path}/{name}.yaml:train" for name in names])
        for names in (["data"], ["data", "other"])
    )
    assert train([*words, "DATASETS.TRAIN", one]) == 2
    assert "shows bg alone" in capsys.readouterr().err
    assert train([*words, "DATASETS.TRAIN", both]) == 0, capsys.readouterr().err


def test_metrics_have_null_for_what_does_not_exist(tmp_path):
    file = MetricsFile(tmp_path / "metrics.json", resume_at=0)
    file.write(3, {"IoU-a": float("nan"), "loss": float("inf"), "lr": 0.1})
    file.close()

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    line = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert line == {"iteration": 3, "IoU-a": None, "loss": None, "lr": 0.1}
