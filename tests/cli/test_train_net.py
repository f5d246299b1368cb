"""The command as a new user meets it: every mistake gives one clear error and loses nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afdcd.cli.train_net import main

RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def refused(configs, tmp_path, capsys):
    """Run the command on distilled.yaml; it must end with code 2 and say something."""

    def call(*words: str, config: str = "distilled", output: Path | None = None) -> str:
        command = ["--config-file", str(configs / f"{config}.yaml"), *words]
        if output is not None:
            command += ["OUTPUT_DIR", str(output)]
        elif "OUTPUT_DIR" not in words:
            command += ["OUTPUT_DIR", str(tmp_path / "run")]
        assert main(command) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") or "\nerror: " in message
        assert "Traceback" not in message
        return message

    return call


def test_trains_and_says_where(configs, tmp_path, caplog):
    words = ["--config-file", str(configs / "distilled.yaml"), "--num-gpus", "0"]
    with caplog.at_level("INFO"):
        assert main([*words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    text = caplog.text
    assert "Teacher on camvid_val: mIoU" in text
    assert "(teacher " in text  # beside the student's
    assert "Loss: task + 1 * logit_kd + 2e-06 * reconstruction + 0.005 * contrast" in text
    assert "student_final.pth" in text


def test_wrong_data_root(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    message = refused()
    assert str(tmp_path / "nowhere/camvid") in message
    assert "train/ and trainannot/" in message and "val/ and valannot/" in message


def test_missing_label_file(refused, tmp_path):
    (tmp_path / "data/camvid/trainannot/00002.png").unlink()
    assert "train/00002.png should have" in refused()


def test_label_values_out_of_range(refused, tmp_path):
    path = tmp_path / "data/camvid/valannot/00001.png"
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(path)
    message = refused()
    assert str(path) in message and "77" in message


def test_corrupt_and_truncated_images(refused, tmp_path):
    first, second = (tmp_path / f"data/camvid/train/0000{i}.png" for i in (0, 3))
    first.write_bytes(b"nothing")
    second.write_bytes(second.read_bytes()[:100])
    message = refused()
    assert str(first) in message and str(second) in message


def test_image_and_label_of_different_size(refused, tmp_path):
    path = tmp_path / "data/camvid/trainannot/00000.png"
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(path)
    assert "is 48x64 but its label map" in refused()


def test_wrong_teacher_weights(refused, tmp_path):
    weights = tmp_path / "teacher.pth"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused()
    weights.unlink()
    assert f"no checkpoint at {weights}" in refused()


def test_weights_of_another_architecture(refused, configs):
    message = refused("MODEL.DISTILLER.TEACHER.OPTS", "['MODEL.RESNETS.DEPTH', '50']")
    assert "doesn't fit the model" in message and "in kind, depth or stem" in message


def test_misspelt_key(refused):
    assert "did you mean SOLVER.MAX_ITER" in refused("SOLVER.MAX_ITERS", "3")


@pytest.mark.parametrize("schedule", ["{START: 0.99}", "{END: 0.00001, START: 0.000001}"])
def test_a_schedule_of_no_step(refused, schedule: str):
    message = refused("MODEL.DISTILLER.LOSSES.afdcd.SCHEDULE", schedule)
    assert "LOSSES.afdcd.SCHEDULE leaves it none of the run's" in message


def test_images_of_a_teacher_with_a_config(refused):
    message = refused("MODEL.DISTILLER.TEACHER.IMAGES.SIZE", "[7,7]")
    assert "TEACHER.IMAGES.SIZE is for other people's models" in message


def test_misspelt_tap(refused):
    message = refused("MODEL.DISTILLER.LOSSES.afdcd.TAPS", "[['backbone.res5','backbone.ers5']]")
    assert "the teacher has no module 'backbone.ers5'" in message
    assert "did you mean backbone.res5" in message


def test_missing_config_file(capsys):
    assert main(["--config-file", "configs/nothing.yaml"]) == 2
    assert "no config file at configs/nothing.yaml" in capsys.readouterr().err


def test_output_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(output=tmp_path / "file/run")
    assert "can't be written" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output_folder(refused, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    assert "can't be written" in refused(output=folder)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_full_disk_ends_the_run_and_keeps_what_was_written(configs, tmp_path, runtime: str):
    """Files beyond a limit can't be written, as on a full disk: after the first checkpoint."""
    script = (
        "import resource, sys\n"
        "from afdcd.engine import checkpoints\n"
        "from afdcd.cli.train_net import main\n"
        "save = checkpoints.Checkpoints.save\n"
        "def save_and_fill(self, content, **flags):\n"
        "    path = save(self, content, **flags)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    return path\n"
        "checkpoints.Checkpoints.save = save_and_fill\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["--runtime", runtime, "--num-gpus", "0", "--config-file"]
    words += [str(configs / "distilled.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "model_0000005.pth can't be written: File too large" in done.stderr
    assert "go on with --resume" in done.stderr
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert "model_0000002.pth" in left and not any("unfinished" in name for name in left)
    assert main(["--resume", *words]) == 0


def test_occupied_output_folder_is_left_alone(refused, configs, tmp_path):
    words = ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 0
    before = (tmp_path / "run/model_final.pth").read_bytes()
    assert "already holds a run (model_final.pth): add --resume" in refused(config="student")
    assert (tmp_path / "run/model_final.pth").read_bytes() == before


def test_resuming_from_a_truncated_checkpoint_names_an_older_one(refused, configs, tmp_path):
    folder = tmp_path / "run"
    assert main(["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(folder)]) == 0
    final = folder / "model_final.pth"
    final.write_bytes(final.read_bytes()[:500])
    message = refused("--resume", config="student")
    assert "truncated" in message and "write model_0000005.pth into" in message


def test_resuming_another_model(refused, configs, tmp_path):
    words = ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 0
    before = (tmp_path / "run/config.yaml").read_text()
    message = refused("--resume", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8", config="student")
    assert "is of another model than this config describes" in message
    assert (tmp_path / "run/config.yaml").read_text() == before  # it is what the weights are of


def test_resuming_beyond_the_end(refused, configs, tmp_path):
    words = ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 0
    message = refused("--resume", "SOLVER.MAX_ITER", "4", config="student")
    assert "beyond SOLVER.MAX_ITER 4" in message


def test_resuming_from_weights_alone(refused, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"model": {"a": torch.zeros(1)}}, folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    assert "can't be resumed from: it has no optimizer" in refused("--resume")


def test_changed_settings_are_named_on_resume(configs, tmp_path, caplog):
    words = ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 0
    assert main([*words[:2], "--resume", *words[2:], "SOLVER.BASE_LR", "0.5"]) == 0
    assert "SOLVER.BASE_LR: 0.02 -> 0.5" in caplog.text


def test_class_count(refused):
    message = refused("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19")
    assert "NUM_CLASSES is 19, but camvid_train has 11 classes" in message


def test_another_ignored_value_than_the_data_sets(refused):
    """Class 0 would be left out of the loss."""
    for value in ("0", "254"):
        message = refused("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", value)
        assert f"IGNORE_VALUE is {value}, but the pixels of camvid_train" in message
        assert "leave IGNORE_VALUE at 255" in message


def test_a_crop_without_a_patch(refused):
    message = refused("INPUT.SCALE_CROP.SIZE", "[24,24]")
    assert "3x3" in message and "holds no patch of 4x4" in message


def test_all_problems_at_once(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    (tmp_path / "teacher.pth").unlink()
    message = refused("SOLVER.IMS_PER_BATCH", "1", "SOLVER.LR_SCHEDULER_NAME", "Cosine")
    assert "5 problems:" in message
    for part in ("IMS_PER_BATCH", "WarmupPolyLR only", "trainannot", "valannot", "teacher.pth"):
        assert part in message


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "MODEL.META_ARCHITECTURE PanopticFPN"),
        (["MODEL.META_ARCHITECTURE", "Distillr"], "did you mean Distiller?"),
        (["MODEL.DISTILLER.STUDENT", "SemanticSegmenter"], "did you mean SemanticSegmentor?"),
        (["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"], "build_resnet_fpn_backbone"),
    ],
)
def test_what_needs_detectron2(refused, words: list[str], part: str):
    message = refused("--runtime", "embedded", *words)
    assert part in message and "Install Detectron2 by its official instructions" in message


def test_several_gpus_need_detectron2(refused):
    message = refused("--runtime", "embedded", "--num-gpus", "8")
    assert "--num-gpus 8" in message and "official instructions" in message


@pytest.mark.slow
def test_the_projects_main_command_without_data(tmp_path):
    """python tools/train_net.py --config-file configs/afdcd_cityscapes.yaml --num-gpus 8"""
    command = [sys.executable, "tools/train_net.py", "--num-gpus", "8"]
    command += ["--config-file", "configs/afdcd_cityscapes.yaml"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert str(tmp_path / "cityscapes") in done.stderr
    assert "leftImg8bit/train/ and gtFine/train/" in done.stderr
    assert "leftImg8bit/val/ and gtFine/val/" in done.stderr


def test_evaluation_without_weights(refused):
    assert "MODEL.WEIGHTS is empty" in refused("--eval-only")
