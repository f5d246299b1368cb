"""Habits that have cost people files or hours: what is changed, damaged, linked or named twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train


@pytest.fixture
def command(configs, tmp_path):
    def words(name: str = "student", *more: str) -> list[str]:
        flags = ["--runtime", "embedded", "--num-gpus", "0"]
        config = ["--config-file", str(configs / f"{name}.yaml")]
        return [*flags, *config, "OUTPUT_DIR", str(tmp_path / "run"), *more]

    return words


def checkpoint(folder: Path, name: str = "model_final.pth") -> dict:
    return torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("MOMENTUM", "0.0"), ("WEIGHT_DECAY", "0.5"), ("NESTEROV", "True")],
)
def test_a_changed_optimizer_is_what_a_resumed_run_trains_with(
    command, tmp_path, caplog, key: str, value: str
):
    assert train(command("student", "SOLVER.CHECKPOINTS_KEPT", "9")) == 0
    run, plain = tmp_path / "run", tmp_path / "plain"
    shutil.copytree(run, plain)
    for name in ("model_final.pth", "student_final.pth", "model_best.pth"):
        (run / name).unlink()
    (run / "last_checkpoint").write_text("model_0000002.pth")
    assert train(["--resume", *command("student", f"SOLVER.{key}", value)]) == 0
    assert f"SOLVER.{key}: " in caplog.text and f"-> {value}" in caplog.text
    group = checkpoint(run)["optimizer"]["param_groups"][0]
    assert group[key.lower()] == yaml.safe_load(value.lower())
    one, other = checkpoint(run)["model"], checkpoint(plain)["model"]
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert yaml.safe_load((run / "config.yaml").read_text())["SOLVER"][key] == (
        yaml.safe_load(value.lower())
    )


def test_mixed_precision_switched_on_by_a_resume(command, tmp_path):
    assert train(command("student", "SOLVER.MAX_ITER", "3")) == 0
    words = command("student", "SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16")
    assert train(["--resume", *words]) == 0
    assert checkpoint(tmp_path / "run")["iteration"] == 7


@pytest.mark.parametrize("flags", [[], ["--eval-only"]])
def test_a_damaged_checkpoint(command, tmp_path, capsys, flags: list[str]):
    data = bytearray((tmp_path / "teacher.pth").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "bad.pth").write_bytes(data)
    weights = ["MODEL.WEIGHTS", str(tmp_path / "bad.pth")]
    assert train([*flags, *command("teacher", *weights)]) == 2
    assert "doesn't match its checksum" in capsys.readouterr().err


def test_a_test_set_named_twice(command, capsys):
    assert train(command("student", "DATASETS.TEST", "['camvid_val','camvid_val']")) == 2
    assert "DATASETS.TEST names camvid_val twice" in capsys.readouterr().err


def test_images_shared_through_links(configs, tmp_path, command, capsys):
    data = tmp_path / "data/camvid"
    shutil.rmtree(data / "val")
    (data / "val").mkdir()
    for path in sorted((data / "valannot").iterdir()):
        path.unlink()
    for path in sorted((data / "train").iterdir())[:2]:
        (data / "val" / path.name).symlink_to(path)
        shutil.copy(data / "trainannot" / path.name, data / "valannot" / path.name)
    assert train(command()) == 2
    assert "share 2 images" in capsys.readouterr().err


def test_a_list_without_inner_quotes(command, tmp_path):
    taps = "[[backbone.res5,backbone.res5]]"
    assert train(command("distilled", "MODEL.DISTILLER.LOSSES.afdcd.TAPS", taps)) == 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("_BASE_:", "_BASE_ takes a file, or a list of files; got None"),
        ("_BASE_: [student.yaml, 3]", "got ['student.yaml', 3]"),
        ("_BASE_: student.yaml\nTEST: {SCALES: [.inf]}", "TEST.SCALES must be factors above 0"),
        ("_BASE_: student.yaml\nINPUT: {SCALE_CROP: {SCALES: [0.5, 1.0e+9]}}", "SCALE_CROP"),
        ("_BASE_: student.yaml\nMODEL: {PIXEL_MEAN: [.nan, 1, 1]}", "three finite numbers"),
        ("_BASE_: distilled.yaml\nMODEL: {DISTILLER: {LOSSES: {1: {NAME: cwd}}}}", "in quotes"),
        (
            "_BASE_: distilled.yaml\nMODEL: {DISTILLER: {LOSSES: {logit_kd: {TEMPERATURE: .inf}}}}",
            "TEMPERATURE takes a finite number",
        ),
    ],
)
def test_odd_files(configs, command, capsys, text: str, part: str):
    (configs / "odd.yaml").write_text(text)
    assert train(command("odd")) == 2
    assert part in capsys.readouterr().err


def test_crops_of_one_pixel(command):
    assert train(command("student", "INPUT.SCALE_CROP.SIZE", "[1,1]")) in (0, 2)


@pytest.fixture
def trained(command, tmp_path) -> list[str]:
    assert train(command("student", "SOLVER.MAX_ITER", "2")) == 0
    return command()


def test_photos_in_the_output_folder_are_not_overwritten(trained, tmp_path, capsys):
    folder, source = tmp_path / "z", tmp_path / "data/camvid/val/00000.png"
    (folder / "in").mkdir(parents=True)
    shutil.copy(source, folder / "in/a.png")
    shutil.copy(tmp_path / "data/camvid/train/00001.png", folder / "a.png")
    before = (folder / "a.png").read_bytes()
    flags = ["--official-values", "--no-overlay", "--output", str(folder)]
    words = ["--input", str(folder / "in/a.png"), *flags, *trained]
    assert predict(words) == 2
    assert "a.png is there already and is no label map" in capsys.readouterr().err
    assert (folder / "a.png").read_bytes() == before
    (folder / "a.png").unlink()
    assert predict(words) == predict(words) == 0  # its own results may be replaced


def test_inputs_below_the_output_folder(trained, tmp_path, capsys):
    folder = tmp_path / "all"
    shutil.copytree(tmp_path / "data/camvid/val", folder / "in")
    words = ["--input", str(folder / "in"), "--output", str(folder), "--no-overlay", *trained]
    assert predict(words) == 0
    assert "Predicted 2 images" in capsys.readouterr().out


def test_frames_of_a_longer_video_do_not_stay(trained, tmp_path):
    for frames in (5, 2):
        path = tmp_path / "v.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for shade in range(frames):
            writer.write(np.full((48, 64, 3), 40 * shade, np.uint8))
        writer.release()
        words = ["--input", str(path), "--output", str(tmp_path / "out"), *trained]
        assert predict(words) == 0
        assert len(list((tmp_path / "out/v").iterdir())) == frames
