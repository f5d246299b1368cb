"""Every mistake gives one clear message through Detectron2's runtime too, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afdcd.cli.train_net import main
from afdcd.d2 import trainer as trainer_module
from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.interrupt import Interrupted

from helpers.d2_runs import assert_same_tensors, checkpoint, train_detectron2
from helpers.shapes_runs import tiny

D = "MODEL.DISTILLER."


@pytest.fixture
def refused(configs, tmp_path, capsys):
    """Run the command on distilled.yaml; it must end with code 2 and say something."""

    def call(*words: str, config: str | Path = "distilled", flags: tuple[str, ...] = ()) -> str:
        path = config if isinstance(config, Path) else configs / f"{config}.yaml"
        command = ["--runtime", "detectron2", "--num-gpus", "0", *flags, "--config-file", str(path)]
        output = [] if "OUTPUT_DIR" in words else ["OUTPUT_DIR", str(tmp_path / "run")]
        assert main([*command, *words, *output]) == 2
        message = capsys.readouterr().err
        assert "error: " in message and "Traceback" not in message
        return message

    return call


SETTINGS = {
    "clipping": (
        ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "nrom"],
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
    ),
    "reference world size": (
        ["SOLVER.REFERENCE_WORLD_SIZE", "3"],
        "SOLVER.REFERENCE_WORLD_SIZE 3: SOLVER.IMS_PER_BATCH 2 can't be shared out",
    ),
    "scaled down to one image": (
        ["SOLVER.REFERENCE_WORLD_SIZE", "2"],
        "SOLVER.IMS_PER_BATCH must be at least 2",
    ),
    "teacher's crops": (
        [
            f"{D}TEACHER.OPTS",
            "['INPUT.CROP.ENABLED', True, 'MODEL.SEM_SEG_HEAD.NAME', 'DeepLabV3Head']",
        ],
        "add INPUT.CROP.ENABLED False to MODEL.DISTILLER.TEACHER.OPTS",
    ),
    "key": (["SOLVER.MAX_ITERS", "3"], "did you mean SOLVER.MAX_ITER"),
    "type": (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
    "odd words": (["SOLVER.MAX_ITER"], "KEY VALUE pairs"),
    "meta-architecture": (["MODEL.META_ARCHITECTURE", "Nope"], "Nope"),
    "meta-architecture typo": (["MODEL.META_ARCHITECTURE", "Distiler"], "did you mean Distiller"),
    "student": ([f"{D}STUDENT", "SemanticSegmenter"], "did you mean SemanticSegmentor"),
    "backbone": (["MODEL.BACKBONE.NAME", "build_nothing"], "build_nothing"),
    "backbone typo": (
        ["MODEL.BACKBONE.NAME", "build_dilated_resnet"],
        "mean build_dilated_resnet_backbone",
    ),
    "head": (["MODEL.SEM_SEG_HEAD.NAME", "AsppHead"], "did you mean ASPPHead"),
    "depth": (["MODEL.RESNETS.DEPTH", "19"], "19"),
    "weights": (["MODEL.WEIGHTS", "none.pth"], "no checkpoint at"),
    "classes": (
        ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19"],
        "NUM_CLASSES is 19, but camvid_train has 11 classes",
    ),
    "ignored value": (
        ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "0"],
        "IGNORE_VALUE is 0, but the pixels of camvid_train",
    ),
    "data set": (["DATASETS.TRAIN", "['camvid_trian']"], "did you mean camvid_train"),
    "no data set": (["DATASETS.TRAIN", "[]"], "DATASETS.TRAIN is empty"),
    "no test set": (["DATASETS.TEST", "[]"], "DATASETS.TEST is empty"),
    "mapper": (["INPUT.MAPPER", "detectron"], "did you mean detectron2"),
    "crop": (["INPUT.CROP.ENABLED", "True"], "leave INPUT.CROP.ENABLED off"),
    "small crop": (["INPUT.SCALE_CROP.SIZE", "[24,24]"], "holds no patch of 4x4"),
    "no crop": (["INPUT.SCALE_CROP.SIZE", "[0,24]"], "SCALE_CROP"),
    "half a crop": (["INPUT.SCALE_CROP.SIZE", "[32]"], "SCALE_CROP"),
    "scales": (["INPUT.SCALE_CROP.SCALES", "[2.0,0.5]"], "scales"),
    "flip": (["INPUT.RANDOM_FLIP", "sideways"], "RANDOM_FLIP"),
    "sizes": (["INPUT.MIN_SIZE_TRAIN", "(480,512)"], "MIN_SIZE_TRAIN takes one size"),
    "batch of one": (["SOLVER.IMS_PER_BATCH", "1"], "IMS_PER_BATCH must be at least 2"),
    "iterations": (["SOLVER.MAX_ITER", "0"], "MAX_ITER must be at least 1"),
    "schedule": (["SOLVER.LR_SCHEDULER_NAME", "Nope"], "Nope"),
    "schedule typo": (["SOLVER.LR_SCHEDULER_NAME", "WarmupPoly"], "did you mean WarmupPolyLR"),
    "precision": (
        ["SOLVER.AMP.DTYPE", "float8"],
        "SOLVER.AMP.DTYPE must be one of float16, bfloat16",
    ),
    "precise BatchNorm": (["TEST.PRECISE_BN.ENABLED", "True"], "not supported by this trainer"),
    "student's tap": (
        [f"{D}LOSSES.afdcd.TAPS", "[['backbone.ers5','backbone.res5']]"],
        "did you mean backbone.res5",
    ),
    "teacher's tap": (
        [f"{D}LOSSES.afdcd.TAPS", "[['backbone.res5','backbone.ers5']]"],
        "the teacher has no module 'backbone.ers5'",
    ),
    "one tap": ([f"{D}LOSSES.afdcd.TAPS", "[['backbone.res5']]"], "pair"),
    "loss": ([f"{D}LOSSES.afdcd.NAME", "afdcdd"], "did you mean afdcd"),
    "teacher's config": ([f"{D}TEACHER.CONFIG_FILE", ""], "CONFIG_FILE is empty"),
    "teacher's network": (
        [f"{D}TEACHER.OPTS", "['MODEL.RESNETS.DEPTH', '50']"],
        "doesn't fit the model",
    ),
    "groups": ([f"{D}LOSSES.afdcd.GROUPS", "7"], "7"),
    "temperature": ([f"{D}LOSSES.afdcd.TEMPERATURE", "0.0"], "temperature"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(refused, name: str):
    words, message = SETTINGS[name]
    assert message in refused(*words)


def test_panoptic_settings(refused, tmp_path):
    student = tiny("panoptic_fpn_student")
    message = refused("MODEL.ROI_HEADS.NUM_CLASSES", "80", config=student)
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 80, but DATASETS.TRAIN" in message
    assert "needs 2" in message
    message = refused("INPUT.MAPPER", "scale_crop", config=student)
    assert "set INPUT.MAPPER detectron2" in message
    message = refused("DATASETS.TEST", "['shapes_vla']", config=student)
    assert "did you mean shapes_val" in message


def test_wrong_data(refused, tmp_path, monkeypatch):
    data = tmp_path / "data/camvid"
    shutil.copytree(data, tmp_path / "kept")

    def mended() -> None:
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "kept", data)

    (data / "trainannot/00002.png").unlink()
    assert "train/00002.png should have" in refused()
    mended()
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(data / "valannot/00001.png")
    assert "valannot/00001.png" in (message := refused()) and "77" in message
    mended()
    image = data / "train/00000.png"
    image.write_bytes(image.read_bytes()[:100])
    assert str(image) in refused()
    mended()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere/camvid") in refused()


def test_wrong_files(refused, configs, tmp_path):
    weights = tmp_path / "teacher.pth"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    weights.write_bytes(whole)
    assert "truncated" in refused("MODEL.WEIGHTS", str(tmp_path / "half.pth"))
    assert "doesn't fit the model" in refused("MODEL.WEIGHTS", str(weights))
    assert "MODEL.WEIGHTS is empty" in refused(flags=("--eval-only",))
    words = ("MODEL.WEIGHTS", str(weights))
    assert "doesn't fit the model" in refused(*words, flags=("--eval-only",))
    (tmp_path / "file").write_text("")
    assert "can't be written" in refused("OUTPUT_DIR", str(tmp_path / "file/run"))


def test_what_detectron2_breaks_on(refused):
    words = ["MODEL.ROI_HEADS.NUM_CLASSES", "8"]
    words += ["DATASETS.TRAIN", "['cityscapes_fine_instance_seg_train']"]
    message = refused(*words, config=tiny("mask_rcnn_student"))
    assert "'deeplearning'" in message and "cityscapes_fine_panoptic_* works" in message


def test_missing_coco(refused):
    message = refused(config=tiny("../coco/mask_rcnn_r50"))
    assert "coco_2017_train needs" in message and "instances_train2017.json" in message
    assert "set DETECTRON2_DATASETS" in message


def test_errors_of_processes(refused, configs):
    """Known only when the models are built, in each of them."""
    flags = ("--num-gpus", "2")
    words = ["MODEL.DISTILLER.LOSSES.afdcd.TAPS", "[['backbone.ers5','backbone.res5']]"]
    message = refused("SOLVER.IMS_PER_BATCH", "4", *words, flags=flags)
    assert message.count("error: ") == 1 and "did you mean backbone.res5" in message


def test_several_machines_need_an_address(refused):
    words = ["SOLVER.IMS_PER_BATCH", "4"]
    assert "--dist-url tcp://" in refused(*words, flags=("--num-machines", "2"))


def test_resuming(refused, configs, tmp_path):
    run = tmp_path / "run"
    words = ["OUTPUT_DIR", str(run)]
    train_detectron2(configs / "student.yaml", run)
    final = run / "model_final.pth"
    before = final.read_bytes()
    message = refused(*words, config="student")
    assert "already holds a run (model_final.pth): add --resume" in message
    resume = {"config": "student", "flags": ("--resume",)}
    settings = (run / "config.yaml").read_text()
    message = refused("MODEL.RESNETS.RES2_OUT_CHANNELS", "8", **resume)
    assert "is of another model than this config describes" in message
    assert "beyond SOLVER.MAX_ITER 4" in refused("SOLVER.MAX_ITER", "4", **resume)
    assert final.read_bytes() == before and (run / "config.yaml").read_text() == settings
    train_detectron2(configs / "student.yaml", run, "SOLVER.BASE_LR", "0.5", resume=True)
    assert "SOLVER.BASE_LR: 0.02 -> 0.5" in (run / "log.txt").read_text()
    final.write_bytes(before[:500])
    message = refused(**resume)
    assert "truncated" in message and "write model_0000005.pth into" in message


def test_a_scaled_run_is_resumed(configs, tmp_path):
    words = ["SOLVER.REFERENCE_WORLD_SIZE", "2", "SOLVER.IMS_PER_BATCH", "4"]
    words += ["SOLVER.MAX_ITER", "4"]
    run = tmp_path / "run"
    results = train_detectron2(configs / "student.yaml", run, *words)
    assert results["iterations"] == 8  # of 2 images, as one process takes them
    assert train_detectron2(configs / "student.yaml", run, *words, resume=True) == results


def test_lines_of_a_crash_are_dropped(configs, tmp_path):
    run = tmp_path / "run"
    train_detectron2(configs / "student.yaml", run, "SOLVER.CHECKPOINTS_KEPT", "9")
    lines = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(lines + '{"iteration": 99, "lr": 1.0}\n{"itera')
    (run / "last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(configs / "student.yaml", run, resume=True)
    found = [json.loads(line)["iteration"] for line in (run / "metrics.json").open()]
    assert found == sorted(found) and found[-1] == 7


@pytest.fixture
def spoilt(monkeypatch):
    """A projector that breaks at iteration 4."""
    step = trainer_module.StepTrainer.run_step

    def spoil(self):
        if self.iter == 4:
            with torch.no_grad():
                self.model.distiller.afdcd.projector[0].weight.fill_(float("inf"))
        step(self)

    monkeypatch.setattr(trainer_module.StepTrainer, "run_step", spoil)


def test_non_finite_loss(configs, tmp_path, spoilt, capsys):
    command = ["--runtime", "detectron2", "--num-gpus", "0"]
    command += ["--config-file", str(configs / "distilled.yaml")]
    assert main([*command, "OUTPUT_DIR", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert "loss_reconstruction, loss_contrast is not finite at iteration 4" in captured.err
    assert "model_0000002.pth is from before" in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert all(
        torch.isfinite(v).all()
        for v in checkpoint(tmp_path / "run", "model_0000002.pth")["model"].values()
    )


def test_interrupted_and_resumed_is_as_if_uninterrupted(configs, tmp_path, monkeypatch):
    config, whole, parts = configs / "distilled.yaml", tmp_path / "whole", tmp_path / "parts"
    train_detectron2(config, whole)
    step = trainer_module.StepTrainer.run_step

    def step_and_interrupt(self):
        step(self)
        if self.iter == 4:  # not at a checkpoint
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.StepTrainer, "run_step", step_and_interrupt)
        with pytest.raises(Interrupted, match=r"after iteration 5; its state is saved.*--resume"):
            train_detectron2(config, parts)
    train_detectron2(config, parts, resume=True)
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(whole)[part], checkpoint(parts)[part])


def test_non_finite_loss_is_an_error_of_its_own(configs, tmp_path, spoilt):
    with pytest.raises(NonFiniteLoss):
        train_detectron2(configs / "distilled.yaml", tmp_path / "run")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(configs, tmp_path, dtype: str):
    amp = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype]
    results = train_detectron2(configs / "distilled.yaml", tmp_path / "run", *amp)
    assert results["iterations"] == 8
    state = checkpoint(tmp_path / "run")
    assert all(v.dtype in (torch.float32, torch.int64) for v in state["model"].values())
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    assert bool(state["scaler"]) == (dtype == "float16")


def test_writers_have_every_term(configs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_detectron2(configs / "distilled.yaml", tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run"))
    board.Reload()
    line = {k for x in (tmp_path / "run/metrics.json").open() for k in json.loads(x)}
    terms = {"loss_sem_seg", "loss_sem_seg_aux", "loss_logit_kd", "loss_reconstruction"}
    terms |= {"loss_contrast", "total_loss", "lr", "camvid_val/sem_seg/mIoU"}
    assert terms <= line and terms <= set(board.Tags()["scalars"])
