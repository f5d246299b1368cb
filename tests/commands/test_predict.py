"""Prediction of images, folders and videos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from afdcd.commands.predict import Style, main, overlay, stored_labels
from afdcd.commands.train_net import configure
from afdcd.data.cityscapes import ID_MAP, IDS
from afdcd.data.labels import LabelMap, rgb_code
from afdcd.models import build_segmentor_from_config


@pytest.fixture
def predict(configs, tmp_path, capsys):
    """Run the command with the tiny teacher; returns exit code and what it said."""

    def call(*words: str, config: str = "teacher", weights: str | None = None) -> tuple[int, str]:
        command = ["--runtime", "embedded", "--config-file", str(configs / f"{config}.yaml")]
        command += ["--weights", weights or str(tmp_path / "teacher.pth"), "--num-gpus", "0"]
        code = main([*command, "--output", str(tmp_path / "out"), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def expected(configs, tmp_path, path) -> np.ndarray:
    cfg = configure(str(configs / "teacher.yaml"), [])
    model = build_segmentor_from_config(cfg).eval()
    model.load_state_dict(torch.load(tmp_path / "teacher.pth", weights_only=True)["model"])
    image = np.array(Image.open(path))[:, :, ::-1].transpose(2, 0, 1).copy()
    with torch.no_grad():
        return model([{"image": torch.from_numpy(image)}])[0]["sem_seg"].argmax(0).numpy()


def test_a_folder(predict, configs, tmp_path):
    code, said = predict("--input", str(tmp_path / "data/camvid/train"), "--batch-size", "4")
    assert code == 0 and "Predicted 6 images" in said
    out = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert out[:2] == ["00000_labels.png", "00000_overlay.png"] and len(out) == 12
    for index in range(6):
        labels = np.array(Image.open(tmp_path / f"out/{index:05d}_labels.png"))
        image = tmp_path / f"data/camvid/train/{index:05d}.png"
        np.testing.assert_array_equal(labels, expected(configs, tmp_path, image))


def test_images_of_several_sizes_and_folders_below(predict, tmp_path):
    folder = tmp_path / "mixed/below"
    folder.mkdir(parents=True)
    for index, size in enumerate([(40, 30), (40, 30), (31, 57)]):
        Image.new("RGB", size, (9, 99, 200)).save(folder / f"{index}.jpg")
    one = tmp_path / "data/camvid/val/00000.png"
    code, _ = predict("--input", str(folder.parent), str(one), "--batch-size", "3", "--no-overlay")
    assert code == 0
    assert Image.open(tmp_path / "out/below/2_labels.png").size == (31, 57)
    assert (tmp_path / "out/00000_labels.png").is_file()
    assert not list((tmp_path / "out").rglob("*_overlay.png"))


def test_a_video(predict, tmp_path):
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(5):
        writer.write(np.full((48, 64, 3), 40 * shade, np.uint8))
    writer.release()
    code, said = predict("--input", str(path), "--batch-size", "2")
    assert code == 0 and "1 videos" in said
    reader = cv2.VideoCapture(str(tmp_path / "out/drive_overlay.mp4"))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    count = 0
    while reader.read()[0]:
        count += 1
    assert count == 5 == len(list((tmp_path / "out/drive").glob("*.png")))


def test_a_distilled_students_config_amp_scales_and_windows(predict, configs, tmp_path):
    cfg = configure(str(configs / "student.yaml"), [])
    torch.save(build_segmentor_from_config(cfg).state_dict(), tmp_path / "s.pth")
    image = str(tmp_path / "data/camvid/val/00000.png")
    words = ["TEST.FLIP", "True", "TEST.WINDOW", "[32,32]", "SOLVER.AMP.DTYPE", "bfloat16"]
    weights = str(tmp_path / "s.pth")
    code, said = predict("--input", image, "--amp", *words, config="distilled", weights=weights)
    assert code == 0, said


def test_values_for_the_cityscapes_server():
    labels = np.array([[*range(19)]])
    stored = stored_labels(labels, ID_MAP)
    assert stored.tolist() == [list(IDS)] and stored.dtype == np.uint8
    np.testing.assert_array_equal(ID_MAP.apply(stored, "x"), labels)


def test_colour_and_16_bit_values(predict, tmp_path):
    colors = LabelMap(2, {rgb_code(1, 2, 3): 0, rgb_code(250, 0, 9): 1}, frozenset(), "rgb")
    assert stored_labels(np.array([[0, 1]]), colors).tolist() == [[[3, 2, 1], [9, 0, 250]]]
    wide = LabelMap(2, {40000: 1, 7: 0}, frozenset({0}))
    assert stored_labels(np.array([[1, 0]]), wide).tolist() == [[40000, 7]]
    image = str(tmp_path / "data/camvid/val/00000.png")
    assert predict("--input", image, "--official-values")[0] == 0
    assert (tmp_path / "out/00000.png").is_file()


def test_overlay_worked_by_hand():
    style = Style(((100, 0, 200),), 0.25, True, True, None)
    image = np.full((1, 1, 3), 40, np.uint8)
    assert overlay(image, np.zeros((1, 1), int), style).tolist() == [[[80, 30, 55]]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "nowhere.png"], "nothing at nowhere.png"),
        (["--input", "README.md"], "is no image"),
        (["--input", "pyproject.toml", "--alpha", "2"], "--alpha must be from 0 to 1"),
        (["--input", "x", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--input", "x", "--no-overlay", "--no-labels"], "leave nothing to write"),
        (["--input", "x", "--weights", "none.pth"], "no checkpoint at"),
    ],
)
def test_mistakes(predict, words: list[str], message: str):
    code, said = predict(*words)
    assert code == 2 and message in said


def test_wrong_weights_and_broken_images(predict, configs, tmp_path):
    image = tmp_path / "data/camvid/val/00000.png"
    code, said = predict("--input", str(image), config="student")
    assert code == 2 and "doesn't fit the model" in said
    image.write_bytes(b"nothing")
    code, said = predict("--input", str(image))
    assert code == 2 and "can't be read as an image" in said
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    code, said = predict("--input", str(tmp_path / "a.mp4"))
    assert code == 2 and "can't be read as a video" in said
