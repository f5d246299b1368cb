"""Every pair and setting of the paper: each config loads, builds and fits."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path

import pytest
import torch
import yaml

from afdcd.checks.weights import teacher_class_problems
from afdcd.data import get_spec
from afdcd.data.description import read_description
from afdcd.distill import distiller_settings
from afdcd.distill.distiller import tap_shapes
from afdcd.distill.plan import build_objectives
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.losses import AfDCDSettings, LogitKDLoss
from afdcd.models import build_segmentor_from_config

RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")
CONFIGS = Path(__file__).parents[2] / "configs"
# Of data sets, beside the configs that name them.
DESCRIPTIONS = {
    CONFIGS / "camvid_yardstick/camvid_broad.yaml",
    CONFIGS / "facade/few.yaml",
    CONFIGS / "facade/halves.yaml",
    CONFIGS / "facade/labelme_facade.yaml",
}
# Benchmark: logit weight, reconstruction weight, contrast weight, crop, iterations, classes.
PUBLISHED = {
    "cityscapes": (1.0, 2e-6, 5e-3, [512, 1024], 40000, 19),
    "camvid": (1.0, 8e-6, 1e-2, [360, 360], 40000, 11),
    "voc": (1.0, 1e-6, 5e-3, [512, 512], 40000, 21),
    "ade20k": (0.5, 1e-6, 4e-2, [512, 512], 40000, 150),
    "coco_stuff": (0.5, 5e-6, 5e-3, [512, 512], 80000, 171),
}
STUDENTS = ("deeplabv3_r18", "deeplabv3_mbv2", "pspnet_r18")
# Parameters of the published networks with 19 classes, by tests/data/models.npz.
PARAMETERS = {"deeplabv3_r18": 13607974, "pspnet_r18": 12919334, "deeplabv3_r101": 61118950}


def build(cfg):
    with torch.device("meta"):
        return build_segmentor_from_config(cfg)


@pytest.mark.parametrize(("dataset", "student"), list(itertools.product(PUBLISHED, STUDENTS)))
def test_settings(dataset: str, student: str):
    kd, fd, ctr, crop, iterations, classes = PUBLISHED[dataset]
    folder = CONFIGS / dataset
    alone = configure(str(folder / f"{student}.yaml"), [])
    outputs = {alone.OUTPUT_DIR}
    assert alone.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    for method, losses in (("logit_kd", ["logit_kd"]), ("afdcd", ["logit_kd", "afdcd"])):
        cfg = configure(str(folder / f"{method}_{student}.yaml"), [])
        outputs.add(cfg.OUTPUT_DIR)
        assert cfg.MODEL.META_ARCHITECTURE == "Distiller"
        settings = distiller_settings(cfg)
        assert losses == [loss.name for loss in settings.losses]
        assert losses == [loss.label for loss in settings.losses]
        logit_kd, afdcd = settings.losses[0], settings.losses[-1]
        assert logit_kd.factors == (kd,) and logit_kd.weights == {"logit_kd": 1.0}
        assert LogitKDLoss(**logit_kd.arguments).temperature == 1.0
        # Only the distillation differs from the student alone.
        for node in ("INPUT", "DATASETS", "SOLVER", "DATALOADER", "TEST"):
            assert cfg[node] == alone[node]
        for node in ("BACKBONE", "RESNETS", "MOBILENETV2", "SEM_SEG_HEAD", "WEIGHTS"):
            assert cfg.MODEL[node] == alone.MODEL[node]
        teacher = EmbeddedRuntime(cfg).teacher().cfg
        assert teacher.MODEL.RESNETS.DEPTH == 101 and teacher.DATASETS == cfg.DATASETS
    assert len(outputs) == 3
    assert afdcd.weights == {"reconstruction": fd, "contrast": ctr} and afdcd.factors == (1.0,)
    assert list(cfg.INPUT.SCALE_CROP.SIZE) == crop and iterations == cfg.SOLVER.MAX_ITER
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH) == (0.02, 16)
    # Of each script, or the release's defaults, as far as they go beyond the table above.
    solver = cfg.SOLVER
    assert (solver.MOMENTUM, solver.NESTEROV, solver.WARMUP_ITERS) == (0.9, False, 0)
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == 1e-4
    assert solver.WEIGHT_DECAY_BIAS in (None, 1e-4) and solver.BIAS_LR_FACTOR == 1.0
    assert (solver.LR_SCHEDULER_NAME, solver.POLY_LR_POWER) == ("WarmupPolyLR", 0.9)
    assert solver.CHECKPOINT_PERIOD == cfg.TEST.EVAL_PERIOD == 800
    scale_crop = cfg.INPUT.SCALE_CROP
    assert (list(scale_crop.SCALES), scale_crop.SCALE_STEP) == ([0.5, 2.0], 0.1)
    assert (cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_FLIP) == ("BGR", "horizontal")
    assert (list(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MIN_SIZE_TEST) == ([0], 0)
    assert cfg.MODEL.PIXEL_MEAN == [104.00698793, 116.66876762, 122.67891434]
    assert cfg.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    assert (cfg.TEST.SCALES, cfg.TEST.FLIP, cfg.TEST.WINDOW) == ([1.0], False, [])
    loss = AfDCDSettings(**afdcd.arguments)
    assert (0 if dataset == "camvid" else 4) == loss.pool
    assert (loss.mask, loss.mask_ratio, loss.projector) == ("random", 0.75, "plain")
    assert (loss.kind, loss.distance, loss.temperature) == ("omni", "l1", 0.07)
    assert (loss.patch, loss.groups) == ((4, 4), 16)
    assert loss.reduction == "published"
    assert afdcd.taps == (("backbone.res5", "backbone.res5"),)
    assert logit_kd.taps == (("sem_seg_head.predictor", "sem_seg_head.predictor"),)
    assert cfg.MODEL.DISTILLER.CLIP_GRADIENTS == 15.0
    assert (0.0 if student == "deeplabv3_mbv2" else 0.4) == cfg.MODEL.SEM_SEG_HEAD.AUX_WEIGHT
    assert teacher.MODEL.SEM_SEG_HEAD.NAME == "ASPPHead"
    assert iterations == teacher.SOLVER.MAX_ITER and teacher.INPUT == cfg.INPUT
    test = {"cityscapes": "val", "camvid": "test", "coco_stuff": "val"}.get(dataset, "val")
    assert [name.rpartition("_")[2] for name in cfg.DATASETS.TEST] == [test]
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert len(get_spec(name).classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == classes


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_every_student_fits_its_teacher(dataset: str):
    folder = CONFIGS / dataset
    teacher_shapes = {}
    for student in STUDENTS:
        cfg = configure(str(folder / f"afdcd_{student}.yaml"), [])
        taps = ["backbone.res5", "sem_seg_head.predictor"]
        size = tuple(cfg.INPUT.SCALE_CROP.SIZE)
        if not teacher_shapes:
            model = build(EmbeddedRuntime(cfg).teacher().cfg)
            teacher_shapes = {
                ("teacher", p): s for p, s in tap_shapes(model, taps, size=size).items()
            }
        model = build(cfg)
        found = tap_shapes(model, taps, size=size)
        shapes = {("student", path): shape for path, shape in found.items()}
        assert shapes["student", taps[0]][1:] == teacher_shapes["teacher", taps[0]][1:]
        assert teacher_shapes["teacher", taps[0]][0] == 2048
        assert shapes["student", taps[1]] == teacher_shapes["teacher", taps[1]]
        with torch.device("meta"):
            objectives = build_objectives(distiller_settings(cfg).losses, shapes | teacher_shapes)
        assert [o.name for o in objectives.objectives] == ["logit_kd", "afdcd"]
        if dataset == "cityscapes" and student in PARAMETERS:
            assert sum(p.numel() for p in model.parameters()) == PARAMETERS[student]


YARDSTICKS = [
    *(
        (folder, method)
        for folder in ("camvid_yardstick", "facade")
        for method in ("logit_kd", "afdcd")
    ),
    *(("camvid_few", method) for method in ("logits", "unlabeled", "unlabeled_few")),
    *(("facade_few", method) for method in ("logits", "unlabeled")),
    ("facade", "unlabeled"),
]


@pytest.mark.parametrize(("folder", "method"), YARDSTICKS)
def test_yardsticks(folder: str, method: str, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    alone = configure(str(CONFIGS / folder / "student.yaml"), [])
    cfg = configure(str(CONFIGS / folder / f"{method}.yaml"), [])
    teacher = EmbeddedRuntime(cfg).teacher().cfg
    for node in ("INPUT", "SOLVER", "DATALOADER", "TEST"):
        assert cfg[node] == alone[node]
    for node in ("BACKBONE", "MOBILENETV2", "SEM_SEG_HEAD", "WEIGHTS"):
        assert cfg.MODEL[node] == alone.MODEL[node]
    assert cfg.DATASETS.TRAIN == alone.DATASETS.TRAIN
    if (folder, method) != ("facade", "unlabeled"):  # it takes half of the test images
        assert cfg.DATASETS.TEST == alone.DATASETS.TEST
    if method in ("logit_kd", "afdcd"):
        assert teacher.DATASETS == cfg.DATASETS == alone.DATASETS and teacher.INPUT == cfg.INPUT
        assert teacher.SOLVER.MAX_ITER > alone.SOLVER.MAX_ITER
    # The teacher's own images are as many times larger as what it is shown.
    factor = cfg.MODEL.DISTILLER.TEACHER.RESOLUTION
    for theirs, ours in (
        (teacher.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN),
        (teacher.INPUT.SCALE_CROP.SIZE, cfg.INPUT.SCALE_CROP.SIZE),
    ):
        assert list(theirs) == [factor * side for side in ours]
    assert f"{teacher.OUTPUT_DIR}/student_final.pth" == cfg.MODEL.DISTILLER.TEACHER.WEIGHTS
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.UNLABELED, *cfg.DATASETS.TEST):
        assert len(get_spec(name).classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


def test_coco_stuffs_other_reading(tmp_path):
    """As the file's own comment says how."""
    comment = (CONFIGS / "coco_stuff/stored_values.yaml").read_text()
    said = re.search(r"^# (TEACHER: \{OPTS: .*\})\.$", comment, re.MULTILINE)[1]
    (tmp_path / "student.yaml").write_text(
        f"_BASE_: [{CONFIGS}/coco_stuff/afdcd_deeplabv3_r18.yaml, "
        f"{CONFIGS}/coco_stuff/stored_values.yaml]\n"
        f"MODEL: {{DISTILLER: {{{said}}}}}\n"
    )
    cfg = configure(str(tmp_path / "student.yaml"), [])
    run = EmbeddedRuntime(cfg)
    teacher = run.teacher()
    assert teacher.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 182
    assert teacher_class_problems(run, teacher) == []
    assert len(get_spec(cfg.DATASETS.TRAIN[0]).classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 182


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_file_loads(runtime: str, monkeypatch):
    """A key that a runtime doesn't have is an error."""
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    merge = configure
    if runtime == "detectron2":
        from afdcd.d2.config import configure as merge
    for path in sorted(CONFIGS.rglob("*.yaml")):
        if path in DESCRIPTIONS:
            assert {"train", "rest"} & set(read_description(path).splits)
        else:
            merge(str(path), [])


def test_nothing_is_copied():
    """What two configs of a benchmark have in common stands in a base of both."""
    for dataset in PUBLISHED:
        files = {p.stem: yaml.safe_load(p.read_text()) for p in (CONFIGS / dataset).iterdir()}
        for name, content in files.items():
            if name.startswith(("afdcd_", "logit_kd_")):
                assert set(content) == {"_BASE_", "OUTPUT_DIR"}, (dataset, name)
            if name in (*STUDENTS, "deeplabv3_r101"):
                assert set(content) <= {"_BASE_", "OUTPUT_DIR", "MODEL"}, (dataset, name)
                assert set(content.get("MODEL", {})) <= {"WEIGHTS"}, (dataset, name)
