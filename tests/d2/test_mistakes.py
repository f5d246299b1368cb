"""A new user's mistakes in Detectron2's runtime: one clear error each, as in the embedded one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from afdcd.cli.train_net import main

D = "MODEL.DISTILLER."


@pytest.fixture
def refused(configs, tmp_path, capsys):
    """Run the command on distilled.yaml; it must end with code 2 and say something."""

    def call(*words: str, config: str = "distilled", flags: tuple[str, ...] = ()) -> str:
        command = ["--runtime", "detectron2", "--num-gpus", "0", *flags]
        command += ["--config-file", str(configs / f"{config}.yaml")]
        if "OUTPUT_DIR" not in words:
            words += ("OUTPUT_DIR", str(tmp_path / "run"))
        assert main([*command, *words]) == 2
        message = capsys.readouterr().err
        # Detectron2's loggers may write to what an earlier test has captured, and say so first.
        _, found, message = message.rpartition("\nerror: " if "\nerror" in message else "error: ")
        assert found and "Traceback" not in message
        return message

    return call


SETTINGS = {
    "key": (["SOLVER.MAX_ITERS", "3"], "did you mean SOLVER.MAX_ITER"),
    "type": (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
    "data set": (["DATASETS.TRAIN", "['camvid_trian']"], "did you mean camvid_train"),
    "no data set": (["DATASETS.TRAIN", "[]"], "DATASETS.TRAIN is empty"),
    "classes": (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19"], "NUM_CLASSES is 19, but camvid_train"),
    "tap": (
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
    "small crop": (["INPUT.SCALE_CROP.SIZE", "[24,24]"], "holds no patch of 4x4"),
    "no crop": (["INPUT.SCALE_CROP.SIZE", "[0,24]"], "SCALE_CROP"),
    "half a crop": (["INPUT.SCALE_CROP.SIZE", "[32]"], "SCALE_CROP"),
    "scales": (["INPUT.SCALE_CROP.SCALES", "[2.0,0.5]"], "scales"),
    "batch of one": (["SOLVER.IMS_PER_BATCH", "1"], "IMS_PER_BATCH must be at least 2"),
    "iterations": (["SOLVER.MAX_ITER", "0"], "MAX_ITER must be at least 1"),
    "schedule": (["SOLVER.LR_SCHEDULER_NAME", "Nope"], "Nope"),
    "flip": (["INPUT.RANDOM_FLIP", "sideways"], "RANDOM_FLIP"),
    "sizes": (["INPUT.MIN_SIZE_TRAIN", "(480,512)"], "MIN_SIZE_TRAIN takes one size"),
    "precision": (["SOLVER.AMP.DTYPE", "float8"], "SOLVER.AMP.DTYPE"),
    "meta-architecture": (["MODEL.META_ARCHITECTURE", "Nope"], "Nope"),
    "backbone": (["MODEL.BACKBONE.NAME", "build_nothing"], "build_nothing"),
    "depth": (["MODEL.RESNETS.DEPTH", "19"], "19"),
    "weights": (["MODEL.WEIGHTS", "none.pth"], "no checkpoint at"),
    "odd words": (["SOLVER.MAX_ITER"], "KEY VALUE pairs"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings(refused, name: str):
    words, message = SETTINGS[name]
    assert message in refused(*words)


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


def test_resuming(refused, configs, tmp_path):
    words = ["--runtime", "detectron2", "--num-gpus", "0"]
    words += ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 0
    final = tmp_path / "run/model_final.pth"
    before = final.read_bytes()
    assert "already holds a run (model_final.pth): add --resume" in refused(config="student")
    resume = {"config": "student", "flags": ("--resume",)}
    message = refused("MODEL.RESNETS.RES2_OUT_CHANNELS", "8", **resume)
    assert "is of another model than this config describes" in message
    assert "beyond SOLVER.MAX_ITER 4" in refused("SOLVER.MAX_ITER", "4", **resume)
    assert final.read_bytes() == before
    assert main(["--resume", *words, "SOLVER.BASE_LR", "0.5"]) == 0
    assert "SOLVER.BASE_LR: 0.02 -> 0.5" in (tmp_path / "run/log.txt").read_text()
    final.write_bytes(before[:500])
    message = refused(**resume)
    assert "truncated" in message and "write model_0000005.pth into" in message
