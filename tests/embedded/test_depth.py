"""Depth in whole runs: alone and distilled, resumed, recorded, without targets; every command."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from afdcd.cli.compare import main as compare
from afdcd.cli.doctor import main as doctor
from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train_net
from afdcd.data import Dataset, LabelMap, get_spec, load_dataset
from afdcd.data.depth import DepthForm, read_depth
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.engine.interrupt import Interrupted
from afdcd.engine.step_runner import StepRunner
from afdcd.tasks import task_of
from afdcd.utils.problems import SetupError

from helpers.depth_runs import write_depth_runs

RECORD = "MODEL.DISTILLER.TEACHER.RECORD"


@pytest.fixture
def place(tmp_path) -> Path:
    return write_depth_runs(tmp_path / "depth")


def train(place: Path, name: str, output: Path, *words: str, resume: bool = False) -> dict:
    cfg = configure(str(place / f"{name}.yaml"), [*words, "OUTPUT_DIR", str(output)])
    return run(cfg, resume=resume)


def state(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_equal_runs(one: Path, other: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        a, b = state(one)[part], state(other)[part]
        assert a.keys() == b.keys()
        for key, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[key]), key


def losses(output: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (output / "metrics.json").read_text().splitlines())
    return [line for line in lines if "total_loss" in line]


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_resumed_to_the_last_bit(place, tmp_path, monkeypatch, name: str):
    results = train(place, name, tmp_path / "whole", "TEST.EVAL_PERIOD", "3")
    figures = results["figures"][f"{place}/data.yaml:val"]
    assert list(figures) == ["AbsRel", "RMSE", "logRMSE", "delta1", "delta2", "delta3"]
    # The best is the lowest.
    lines = map(json.loads, (tmp_path / "whole/metrics.json").read_text().splitlines())
    scored = [value for line in lines for key, value in line.items() if key.endswith("AbsRel")]
    assert len(scored) >= 3 and results["best"]["metric"] == "AbsRel"
    assert results["best"]["value"] == pytest.approx(min(scored))
    update = StepRunner.update

    def update_and_interrupt(self: StepRunner, batch: list[Any], iteration: int) -> None:
        update(self, batch, iteration)
        if iteration == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StepRunner, "update", update_and_interrupt)
    with pytest.raises(Interrupted):
        train(place, name, tmp_path / "parts", "TEST.EVAL_PERIOD", "3")
    monkeypatch.setattr(StepRunner, "update", update)
    train(place, name, tmp_path / "parts", "TEST.EVAL_PERIOD", "3", resume=True)
    parts = ("model", "distiller") if name == "distilled" else ("model",)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts", parts)


@pytest.mark.parametrize(
    "amp", [(), ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16")]
)
def test_every_term_is_learnt(place, tmp_path, amp: tuple[str, ...]):
    train(place, "distilled", tmp_path / "run", *amp)
    found = losses(tmp_path / "run")[0]
    assert {
        "loss_depth",
        "loss_depth_aux",
        "loss_contrast",
        "loss_cwd",
        "loss_output_kd",
    } <= found.keys()
    assert all(np.isfinite(value) for value in found.values())


def test_a_small_network_learns_depth(place, tmp_path):
    words = ("SOLVER.MAX_ITER", "80", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.BASE_LR", "0.05")
    words += ("INPUT.SCALE_CROP.SCALES", "[1.0, 1.0]", "INPUT.SCALE_CROP.SIZE", "[48, 64]")
    train(place, "student", tmp_path / "run", *words, "SOLVER.CHECKPOINT_PERIOD", "0")
    found = losses(tmp_path / "run")
    assert found[-1]["loss_depth"] < found[0]["loss_depth"] / 5


def test_a_recorded_teacher(place, tmp_path):
    record = (f"{RECORD}.FOLDER", str(tmp_path / "record"), f"{RECORD}.VIEWS", "2")
    record += ("MODEL.DISTILLER.LOSSES.afdcd.DIMS", "16")
    train(place, "distilled", tmp_path / "a", *record)
    train(place, "distilled", tmp_path / "b", *record)
    assert_equal_runs(tmp_path / "a", tmp_path / "b", ("model", "distiller"))
    teacher = json.loads((tmp_path / "b/results.json").read_text())["teacher"]
    assert teacher["AbsRel"] > 0


def test_images_without_targets(place, tmp_path):
    """Beside the others, and alone; their depth maps are never opened."""
    shutil.copytree(place / "images", tmp_path / "photos")
    for path in (tmp_path / "photos").iterdir():
        path.rename(path.with_name(f"photo_{path.name}"))
        image = cv2.imread(str(path.with_name(f"photo_{path.name}")))
        cv2.imwrite(str(path.with_name(f"photo_{path.name}")), 255 - image)
    words = ("DATASETS.UNLABELED", f"['{tmp_path}/photos']")
    train(place, "distilled", tmp_path / "a", *words)
    assert losses(tmp_path / "a")[0]["loss_depth"] > 0
    train(place, "distilled", tmp_path / "b", *words, "DATASETS.TRAIN", "[]")
    assert losses(tmp_path / "b")[0]["loss_depth"] == 0
    # A described split gives its images.
    shutil.copytree(place / "depth", tmp_path / "kept")
    for path in (place / "depth").iterdir():
        if path.name in {Path(r["file_name"]).name for r in validation(place)}:
            continue
        path.unlink()
    words = ("DATASETS.UNLABELED", f"['{place}/data.yaml:train']", "DATASETS.TRAIN", "[]")
    train(place, "distilled", tmp_path / "c", *words)


def validation(place: Path) -> list[dict]:
    return load_dataset(f"{place}/data.yaml:val").records


def test_the_task_counts_labelled_images_only(place):
    cfg = configure(str(place / "student.yaml"), [])
    side = EmbeddedRuntime(cfg)
    task = task_of(side.training_dataset())
    stream = side.training_stream(seed=3)
    targets = torch.stack([stream[k]["sem_seg"] for k in range(2)])
    prediction = torch.randn(2, 1, 4, 4)
    alone = task.loss(prediction, targets)
    more = torch.cat([targets, torch.zeros_like(targets)])
    torch.testing.assert_close(task.loss(torch.cat([prediction] * 2), more), alone)


def test_relative_depths(place, tmp_path):
    """A factor of each image's own changes neither the loss nor the scores."""
    change_labels(place, encoding="relative_depth")
    results = train(place, "student", tmp_path / "run")
    assert np.isfinite(results["figures"][f"{place}/data.yaml:val"]["AbsRel"])
    task = task_of(load_dataset(f"{place}/data.yaml:val"))
    targets = torch.from_numpy(np.stack([task.targets()(r) for r in task.dataset.records]))
    output = torch.randn(2, 1, 48, 64, dtype=torch.float64)
    shifted = output + torch.tensor([3.0, -1.0])[:, None, None, None]
    torch.testing.assert_close(task.loss(shifted, targets), task.loss(output, targets))
    scores = []
    for prediction in (output, shifted):
        evaluator = task.evaluator()
        outputs = [{"sem_seg": image.float()} for image in prediction]
        evaluator.process(task.dataset.records, outputs)
        scores.append(evaluator.evaluate())
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    change_labels(place, encoding="depth")
    metric = task_of(load_dataset(f"{place}/data.yaml:val"))
    assert not torch.isclose(metric.loss(shifted, targets), metric.loss(output, targets))


def test_relative_disparities(place, tmp_path):
    """A factor and an offset of each image's own change neither the loss nor the scores."""
    change_labels(place, encoding="relative_disparity")
    results = train(place, "student", tmp_path / "run")
    figures = results["figures"][f"{place}/data.yaml:val"]
    assert figures.keys() == {"FitMAE", "FitRMSE"} and results["best"]["metric"] == "FitMAE"
    task = task_of(load_dataset(f"{place}/data.yaml:val"))
    targets = torch.from_numpy(np.stack([task.targets()(r) for r in task.dataset.records]))
    disparity = torch.rand(2, 1, 48, 64, dtype=torch.float64) + 0.5
    factor, offset = (torch.tensor(x)[:, None, None, None] for x in ([3.0, 0.2], [0.1, 0.6]))
    moved = factor * disparity + offset
    right = torch.where(targets > 0, 3 * targets + 7, 1)[:, None].double()
    torch.testing.assert_close(
        task.loss(-moved.log(), targets), task.loss(-disparity.log(), targets)
    )
    scores = []
    for values in (disparity, moved, right, 1 / right):
        evaluator = task.evaluator()
        outputs = [{"sem_seg": -image.log()} for image in values]
        evaluator.process(task.dataset.records, outputs)
        scores.append(evaluator.evaluate()["FitMAE"])
        np.testing.assert_allclose(task.decode(outputs[0]), values[0, 0], rtol=1e-5)
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[2] < 0.01 and scores[3] > 50 and evaluator.constant() == 100
    # What is near, of a large disparity, is bright.
    ramp = task.picture(np.linspace(0.1, 1, 64, dtype=np.float32)[None].repeat(4, 0))
    assert ramp[0, -1].sum() > ramp[0, 0].sum()
    image = np.zeros((96, 128, 3), np.uint8)
    values = np.linspace(0.5, 1, 96 * 128, dtype=np.float32).reshape(96, 128)
    assert np.array_equal(task.overlay(image, values, 1.0), task.picture(values))  # no legend


def test_a_stored_zero_may_be_a_disparity(place):
    """Where ``invalid`` leaves 0 out: the farthest point of a map that was brought to 0..1."""
    np.save(place / "zero.npy", np.array([[0, 1], [3, -2]], np.float32))
    found = [
        read_depth(place / "zero.npy", DepthForm(0.5, invalid, offset)).tolist()
        for invalid, offset in (((0.0,), 0.0), ((), 1.0))
    ]
    assert found == [[[0, 0.5], [1.5, 0]], [[0.5, 1], [2, 0]]]
    change_labels(place, encoding="relative_disparity", invalid=[])
    assert task_of(load_dataset(f"{place}/data.yaml:val")).reader.form.offset == 1
    change_labels(place, encoding="relative_disparity", invalid=[0])
    assert task_of(load_dataset(f"{place}/data.yaml:val")).reader.form.offset == 0


def test_a_network_that_pads_its_images_leaves_the_padding_out(place):
    """With sides of multiples of 32, 33x40 images are padded; no padding is 255 metres far."""
    cfg = configure(str(place / "student.yaml"), [])
    model = EmbeddedRuntime(cfg).build().train()
    task_of(EmbeddedRuntime(cfg).training_dataset()).bind(model)
    model.backbone.size_divisibility = 32
    targets = []
    model.sem_seg_head.register_forward_pre_hook(lambda _, inputs: targets.append(inputs[1]))
    batch = [{"image": torch.rand(3, 33, 40), "sem_seg": torch.full((33, 40), 2.0)}] * 2
    assert model(batch)["loss_depth"].isfinite()
    assert targets[0].shape == (2, 64, 64)
    assert (targets[0] != 0).sum() == 2 * 33 * 40


def test_predictions_are_pictures_and_metres(place, tmp_path, capsys):
    for path in (place / "images").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (192, 144)))
    words = ["--runtime", "embedded", "--config-file", str(place / "student.yaml")]
    words += ["--weights", str(place / "teacher.pth"), "--input", str(place / "images")]
    more = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "MODEL.SEM_SEG_HEAD.AUX_WEIGHT", "0.0"]
    assert predict([*words, "--output", str(tmp_path / "out"), "--alpha", "1.0", *more]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 16
    values = np.load(tmp_path / "out/0.npy")
    assert values.shape == (144, 192) and values.dtype == np.float32 and (values > 0).all()
    picture = cv2.imread(str(tmp_path / "out/0_overlay.png"))
    assert picture.shape == (144, 192, 3)
    # Above the legend near is bright: brightness falls with depth.
    bright = picture[:130].astype(int).sum(2).ravel()
    order = np.argsort(values[:130].ravel())
    tenth = len(order) // 10
    assert bright[order[:tenth]].mean() > bright[order[-tenth:]].mean()
    # The owners' values are none.
    assert predict([*words, "--output", str(tmp_path / "b"), "--official-values", *more]) == 2
    assert "has no such form" in capsys.readouterr().err
    # Metres aren't drawn as another task's values.
    shutil.copy(place / "data.yaml", place / "other.yaml")
    change_labels(place, encoding="relative_disparity")
    (place / "data.yaml").rename(place / "relative.yaml")
    (place / "other.yaml").rename(place / "data.yaml")
    other = ["--data-set", f"{place}/relative.yaml:val", "--output", str(tmp_path / "c")]
    assert predict([*words, *other, *more]) == 2
    assert "its task is relative_disparity, the model's depth" in capsys.readouterr().err
    same = ["--data-set", f"{place}/data.yaml:val", "--output", str(tmp_path / "c")]
    assert predict([*words, *same, *more]) == 0


def test_pictures():
    spec = get_spec("synthetic_depth_val")
    task = task_of(Dataset(spec, [], LabelMap(1)))
    depth = np.full((96, 128), 8.0, np.float32)
    depth[:48] = 2.0
    picture = task.picture(depth)
    assert picture.shape == (96, 128, 3) and picture.dtype == np.uint8
    assert picture[0, 0].astype(int).sum() > 500 > 50 > picture[-1, -1].astype(int).sum()
    image = np.zeros((96, 128, 3), np.uint8)
    drawn = task.overlay(image, depth, 1.0)
    np.testing.assert_array_equal(drawn[:85], picture[:85])
    # The bar goes from bright to dark, whatever the picture; it says 2 m and 8 m.
    assert drawn[86, 40].astype(int).sum() > drawn[86, 90].astype(int).sum()
    other = task.overlay(image, depth * 1.5, 1.0)
    assert (drawn[85:] != other[85:]).any() and (drawn[:85] == other[:85]).all()
    small = depth[40:60, :60]
    np.testing.assert_array_equal(task.overlay(image[40:60, :60], small, 1.0), task.picture(small))
    task.picture(np.ones((4, 4), np.float32))  # nothing nearest, nothing farthest


def test_compared(place, tmp_path, capsys):
    for seed in ("1", "2"):
        train(place, "student", tmp_path / f"student_{seed}", "SEED", seed)
        train(place, "distilled", tmp_path / f"distilled_{seed}", "SEED", seed)
    ways = [f"{name}={tmp_path}/{name}_*" for name in ("student", "distilled")]
    assert compare(ways) == 0
    said = capsys.readouterr().out
    assert "AbsRel" in said and "distilled - student" in said and "over 2 seeds" in said


# --- The doctor -------------------------------------------------------------------------------


def examine(place: Path, capsys, *words: str) -> dict[str, Any]:
    flags = ["--json", "--runtime", "embedded", "--config-file", str(place / "distilled.yaml")]
    doctor([*flags, "OUTPUT_DIR", str(place / "out"), *words])
    return json.loads(capsys.readouterr().out)


def kinds(report: dict[str, Any]) -> set[str]:
    return {found["kind"] for found in report["fix"]}


def change_labels(place: Path, **labels: object) -> None:
    content = yaml.safe_load((place / "data.yaml").read_text())
    content["labels"] |= labels
    (place / "data.yaml").write_text(yaml.safe_dump(content))


def test_the_doctor_knows_an_untrained_teacher(place, capsys):
    report = examine(place, capsys)
    assert kinds(report) <= {"teacher", "loss-weight"} and "teacher" in kinds(report)
    (text,) = [found["text"] for found in report["fix"] if found["kind"] == "teacher"]
    assert "no better than one value everywhere" in text
    facts = report["facts"][f"files of {place}/data.yaml:train"]
    assert facts["opened"] == facts["of"] == 6 and facts["unusable"] == 0
    assert 1.5 < facts["nearest"] < facts["median"] < facts["farthest"] == 9
    assert facts["pixels with a depth"] == pytest.approx(44 / 48, abs=0.01)


@pytest.mark.parametrize(
    ("scale", "found"), [(1.0, True), (1e-6, True), (0.001, False), (0.01, False)]
)
def test_the_doctor_knows_a_wrong_scale(place, capsys, scale: float, found: bool):
    change_labels(place, scale=scale)
    report = examine(place, capsys)
    assert ("depth-scale" in kinds(report)) == found
    change_labels(place, encoding="relative_depth")
    assert "depth-scale" not in kinds(examine(place, capsys))


def test_the_doctor_knows_damaged_files(place, capsys):
    first, second = (Path(r["sem_seg_file_name"]) for r in validation(place))
    first.write_bytes(first.read_bytes()[:60])
    cv2.imwrite(str(second), np.ones((40, 64), np.uint16))
    texts = [f["text"] for f in examine(place, capsys)["fix"] if f["kind"] == "file"]
    assert any(first.name in text and "can't be read" in text for text in texts)
    assert any("48x64" in text and "40x64" in text for text in texts)
    with pytest.raises(SetupError, match="can't be read"):
        train(place, "student", place / "run")


def test_the_doctor_knows_maps_without_a_depth(place, capsys):
    cv2.imwrite(validation(place)[0]["sem_seg_file_name"], np.zeros((48, 64), np.uint16))
    (text,) = [f["text"] for f in examine(place, capsys)["fix"] if f["kind"] == "no-depth"]
    assert "1 of 2 depth maps have no depth" in text and "leave such images out" in text
    for record in validation(place):
        cv2.imwrite(record["sem_seg_file_name"], np.full((48, 64), 65535, np.uint16))
    (text,) = [f["text"] for f in examine(place, capsys)["fix"] if f["kind"] == "no-depth"]
    assert "2 of 2" in text and "nothing to learn" in text
    for path in (place / "depth").iterdir():
        cv2.imwrite(str(path), np.full((48, 64), 3000, np.uint16))
    assert "constant-depth" in kinds(examine(place, capsys))


def test_what_cannot_work_is_said_before_training(place, tmp_path, capsys):
    flags = ["--runtime", "embedded", "--config-file", str(place / "student.yaml")]
    flags += ["OUTPUT_DIR", str(tmp_path / "run")]
    assert train_net([*flags, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"]) == 2
    assert "NUM_CLASSES is 2, but the task of" in capsys.readouterr().err
    (place / "other.yaml").write_text((place / "data.yaml").read_text())
    change_labels(place, encoding="relative_depth")
    assert train_net([*flags, "DATASETS.TEST", f"['{place}/other.yaml:val']"]) == 2
    assert "a run has one task" in capsys.readouterr().err
    change_labels(place, encoding="depth", scale=0.01)
    both = f"['{place}/data.yaml:train', '{place}/other.yaml:train']"
    assert train_net([*flags, "DATASETS.TRAIN", both]) == 2
    assert "store their labels in different ways" in capsys.readouterr().err
    spec = get_spec("camvid_train")
    with pytest.raises(ValueError, match="register it as a DepthSpec"):
        task_of(Dataset(replace(spec, task="depth"), [], LabelMap(1)))


def test_a_segmentation_teacher_teaches_features(place, configs, tmp_path):
    """Its classes are no depths: features alone are compared, and it isn't scored."""
    words = ["MODEL.DISTILLER.TEACHER.CONFIG_FILE", str(configs / "teacher.yaml")]
    words += ["MODEL.DISTILLER.TEACHER.WEIGHTS", str(configs.parent / "teacher.pth")]
    features = [f"MODEL.DISTILLER.LOSSES.{name}" for name in ("cwd", "output_kd")]
    alone = [word for key in features for word in (key, "null")]
    results = train(place, "distilled", tmp_path / "a", *words, *alone)
    assert results["figures"][f"{place}/data.yaml:val"]["AbsRel"] > 0
    assert losses(tmp_path / "a")[0]["loss_reconstruction"] > 0
    with pytest.raises(SetupError, match="their logits can't be compared"):
        train(place, "distilled", tmp_path / "b", *words)
