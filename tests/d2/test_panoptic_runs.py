"""Panoptic and instance distillation on the synthetic shapes: train, score, resume."""

from __future__ import annotations

import json
import math
import pickle
import shutil

import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper

from afdcd.cli.record_teacher import main as record_teacher
from afdcd.d2 import run as detectron2_run
from afdcd.d2.config import configure
from afdcd.d2.loader import ResumableSampler, detectron2_training_loader, evaluation_loader
from afdcd.d2.panoptic_data import PanopticMapper
from afdcd.d2.shapes import register_shapes
from afdcd.data.view_store import ViewStore

from helpers.d2_runs import assert_same_tensors, checkpoint, losses, train_detectron2
from helpers.shapes_runs import copy_run, cut_back, distilled, score_the_truth, tiny, write_teacher

TASKS = ("panoptic_fpn", "mask_rcnn")
TEACHER = "MODEL.DISTILLER.TEACHER"
LEVELS = ("fpn_output2", "fpn_output3", "fpn_output4")
SCORES = {
    "panoptic_fpn": ("shapes_val_panoptic_separated", "panoptic_seg", "PQ"),
    "mask_rcnn": ("shapes_val", "segm", "AP"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module", autouse=True)
def shapes(folder):
    patch = pytest.MonkeyPatch()
    patch.setenv("DETECTRON2_DATASETS", str(folder / "data"))
    patch.setenv("OMP_NUM_THREADS", "1")
    register_shapes()
    yield
    patch.undo()
    register_shapes()


@pytest.fixture(scope="module")
def teachers(folder, shapes):
    """A folder with each task's teacher."""
    for task in TASKS:
        write_teacher(task, folder / f"{task}.pth")
    return folder


@pytest.fixture(scope="module")
def runs(folder, teachers):
    """A distilled run of each task."""
    for task in TASKS:
        config, words = distilled(task, teachers, "SOLVER.MAX_ITER", "60")
        words += ["SOLVER.CHECKPOINT_PERIOD", "40", "TEST.EVAL_PERIOD", "40"]
        train_detectron2(config, folder / "runs" / task, *words)
    return folder / "runs"


@pytest.mark.parametrize("task", TASKS)
def test_every_distillation_term_falls(runs, task: str):
    lines = losses(runs / task)
    terms = [f"loss_{kind}_{level}" for kind in ("reconstruction", "contrast") for level in LEVELS]
    if task == "panoptic_fpn":
        terms.append("loss_logit_kd")
        assert lines[-1]["loss_sem_seg"] < lines[0]["loss_sem_seg"]
    assert {name for name in lines[0] if "fpn" in name or "kd" in name} == set(terms)
    # Medians of 20 iterations. That they fall is meant; by how much, rounding decides.
    for term in terms:
        assert lines[-1][term] < lines[0][term], term
    assert lines[-1]["loss_mask"] < lines[0]["loss_mask"]


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_gives_scores(runs, task: str):
    data, kind, score = SCORES[task]
    results = json.loads((runs / task / "results.json").read_text())
    figures = results["figures"][data]
    assert 0 < figures[kind][score] <= 100
    assert results["teacher"].keys() == {score}
    if task == "panoptic_fpn":
        # Areas that overlap the truth by more than half: how many, 60 iterations leave to rounding.
        assert figures["panoptic_seg"]["PQ_st"] > 0
        assert {"sem_seg", "bbox", "segm"} <= figures.keys()
    # The distilled student alone, without its teacher, in the plain model.
    config, words = (
        tiny(f"{task}_student"),
        ["MODEL.WEIGHTS", str(runs / task / "student_final.pth")],
    )
    again = detectron2_run.run(str(config), [*words, "OUTPUT_DIR", str(runs / "e")], True, False, 0)
    for name, value in figures[kind].items():
        other = again["figures"][data][kind][name]
        # JSON has null for what doesn't exist: there are no large things.
        expected = math.nan if value is None else value
        assert other == pytest.approx(expected, nan_ok=True), name


@pytest.mark.parametrize("task", TASKS)
def test_resume_is_as_if_uninterrupted(runs, teachers, tmp_path, task: str):
    parts = copy_run(runs / task, tmp_path / "parts")
    cut_back(parts, "model_0000039.pth")
    config, words = distilled(task, teachers, "SOLVER.MAX_ITER", "60")
    words += ["SOLVER.CHECKPOINT_PERIOD", "40", "TEST.EVAL_PERIOD", "40"]
    train_detectron2(config, parts, *words, resume=True)
    whole = runs / task
    a, b = checkpoint(whole), checkpoint(parts)
    for part in ("model", "distiller"):
        assert_same_tensors(a[part], b[part])
    assert a["scheduler"] == b["scheduler"]
    assert losses(parts)[-1].keys() == losses(whole)[-1].keys()
    iterations = [json.loads(x)["iteration"] for x in (parts / "metrics.json").open()]
    assert iterations == [json.loads(x)["iteration"] for x in (whole / "metrics.json").open()]


def test_two_processes(teachers, tmp_path):
    config, words = distilled("panoptic_fpn", teachers, "SOLVER.MAX_ITER", "2")
    results = train_detectron2(config, tmp_path / "two", *words, num_gpus=2)
    assert results["iterations"] == 2
    train_detectron2(config, tmp_path / "one", *words)
    (one,), (two,) = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys() and all(math.isfinite(value) for value in two.values())
    for term, value in one.items():  # of the same images; which boxes are looked at is drawn
        if "fpn_output" in term:
            assert two[term] == pytest.approx(value, rel=0.2), term


def test_the_standard_form_trains_and_scores(teachers, tmp_path):
    """Of segments alone, as of Cityscapes: no prepared label maps, no instances file."""
    config, words = distilled("panoptic_fpn", teachers, "SOLVER.MAX_ITER", "60")
    words += ["DATASETS.TRAIN", "['shapes_train_panoptic']"]
    words += ["DATASETS.TEST", "['shapes_val_panoptic']"]
    results = train_detectron2(config, tmp_path / "run", *words)
    figures = results["figures"]["shapes_val_panoptic"]
    assert "sem_seg" not in figures and figures["panoptic_seg"]["PQ"] > 0


def test_both_forms_give_one_score(runs, tmp_path):
    """Of the same images: the standard form numbers its categories in another way."""
    words = ["DATASETS.TEST", "['shapes_val_panoptic']", "OUTPUT_DIR", str(tmp_path / "e")]
    words += ["MODEL.WEIGHTS", str(runs / "panoptic_fpn/student_final.pth")]
    again = detectron2_run.run(str(tiny("panoptic_fpn_student")), words, True, False, 0)
    results = json.loads((runs / "panoptic_fpn/results.json").read_text())
    assert again["figures"]["shapes_val_panoptic"]["panoptic_seg"] == pytest.approx(
        results["figures"]["shapes_val_panoptic_separated"]["panoptic_seg"]
    )


@pytest.mark.parametrize("name", ["shapes_val_panoptic_separated", "shapes_val_panoptic"])
def test_the_truth_as_prediction_scores_100(name: str):
    figures = score_the_truth(name, "shapes_val_panoptic")
    assert set(figures.values()) == {100.0}


def test_standard_samples_are_those_of_the_separated_form():
    """The mapper that reads segments makes what Detectron2's mapper makes of prepared files."""
    words = ["INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "[96]"]
    samples = []
    for name in ("shapes_train_panoptic_separated", "shapes_train_panoptic"):
        cfg = configure(
            str(tiny("panoptic_fpn_student")), [*words, "DATASETS.TRAIN", f"['{name}']"]
        )
        mapper = (PanopticMapper if name.endswith("panoptic") else DatasetMapper)(cfg, True)
        records = sorted(DatasetCatalog.get(name), key=lambda record: record["image_id"])
        samples.append([mapper(record) for record in records])
    for prepared, ours in zip(*samples, strict=True):
        assert torch.equal(prepared["image"], ours["image"])
        assert torch.equal(prepared["sem_seg"], ours["sem_seg"])
        a, b = prepared["instances"], ours["instances"]
        assert sorted(a.gt_classes.tolist()) == sorted(b.gt_classes.tolist())
        # Polygons and bitmaps differ by the pixels of an outline.
        order = torch.cdist(a.gt_boxes.tensor, b.gt_boxes.tensor).argmin(1).tolist()
        assert sorted(order) == list(range(len(order)))
        torch.testing.assert_close(b.gt_boxes.tensor[order], a.gt_boxes.tensor, atol=1.5, rtol=0)
        assert torch.equal(b.gt_classes[order], a.gt_classes)


@pytest.mark.parametrize("form", ["shapes_train_panoptic_separated", "shapes_train"])
def test_loaders_can_be_sent_to_processes_that_start_anew(form: str):
    """As they are under spawn and forkserver."""
    words = ["DATASETS.TRAIN", f"['{form}']", "DATASETS.TEST", f"['{form}']"]
    task = "panoptic_fpn" if "panoptic" in form else "mask_rcnn"
    cfg = configure(str(tiny(f"{task}_student")), [*words, "DATALOADER.NUM_WORKERS", "0"])
    for loader in (
        detectron2_training_loader(cfg, seed=1, first=0),
        evaluation_loader(cfg, form),
    ):
        inner = getattr(loader, "loader", loader)
        inner = getattr(inner, "dataset", inner)
        again = pickle.loads(pickle.dumps(inner))
        first, same = (next(iter(data)) for data in (inner, again))
        assert str(first) == str(same)
    assert pickle.loads(pickle.dumps(ResumableSampler(4, 3))).first == 3


def test_records_of_images_of_all_sizes(teachers, tmp_path):
    """Each image has a size of its own; a batch's maps are padded to the largest."""
    record = [f"{TEACHER}.RECORD.FOLDER", str(tmp_path / "record"), f"{TEACHER}.RECORD.VIEWS", "1"]
    words = [*record, "SOLVER.MAX_ITER", "4", "INPUT.MIN_SIZE_TRAIN", "(96, 128)"]
    config, overrides = distilled("panoptic_fpn", teachers, *words)
    train_detectron2(config, tmp_path / "a", *overrides)  # recorded as it goes
    store = ViewStore(tmp_path / "record/views")
    as_it_went = {key: store.read(*key) for key in store.there()}
    assert len({tuple(next(iter(v.values())).shape) for v in as_it_went.values() if v}) > 1
    train_detectron2(config, tmp_path / "b", *overrides)
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(tmp_path / "a")[part], checkpoint(tmp_path / "b")[part])
    shutil.rmtree(tmp_path / "record")
    flags = ["--runtime", "detectron2", "--config-file", str(config), *overrides]
    assert record_teacher(flags) == 0
    for key, tensors in as_it_went.items():
        found = store.read(*key)
        assert tensors is not None and found is not None
        assert_same_tensors(tensors, found)
