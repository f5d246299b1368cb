"""Prediction of images, folders and videos."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from afdcd.cli.predict import main
from afdcd.data import DenseMapper, load_dataset
from afdcd.data.cityscapes import IDS
from afdcd.data.targets import LabelReader
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config
from afdcd.prediction import Predictor

from helpers import domains

RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")


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
    assert Image.open(tmp_path / "out/00000_labels.png").size == (64, 48)
    assert not list((tmp_path / "out").rglob("*_overlay.png"))


def test_folders_behind_links(predict, tmp_path):
    """Those that lead in a circle don't hang it."""
    elsewhere = tmp_path / "disk2/city"
    elsewhere.mkdir(parents=True)
    Image.new("RGB", (40, 30), (9, 99, 200)).save(elsewhere / "far.jfif", "JPEG")
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "city").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    code, said = predict("--input", str(folder), "--no-overlay")
    assert code == 0 and "Predicted 1 images" in said
    assert (tmp_path / "out/city/far_labels.png").is_file()
    (folder / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    code, said = predict("--input", str(folder), "--no-overlay")
    assert code == 2 and "no image at" in said and "gone.jpg" in said


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
    maps = {}
    for name, flags in {"exact": words[:4], "amp": ["--amp", *words], "whole": []}.items():
        output = str(tmp_path / name)
        flags = ["--input", image, "--output", output, *flags]
        code, said = predict(*flags, config="distilled", weights=weights)
        assert code == 0, said
        maps[name] = np.array(Image.open(f"{output}/00000_labels.png"))
    # Lower precision turns few pixels; windows and the mirror image, of an untrained network, many.
    assert 0 < (maps["amp"] != maps["exact"]).mean() < 0.1
    assert (maps["whole"] != maps["exact"]).mean() > 0.1


def test_official_values(predict, configs, tmp_path):
    image = str(tmp_path / "data/camvid/val/00000.png")
    assert predict("--input", image, "--official-values")[0] == 0
    stored = np.array(Image.open(tmp_path / "out/00000.png"))  # CamVid's are the labels
    np.testing.assert_array_equal(stored, expected(configs, tmp_path, image))


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


def test_wrong_weights(predict, tmp_path):
    image = tmp_path / "data/camvid/val/00000.png"
    code, said = predict("--input", str(image), config="student")
    assert code == 2 and "doesn't fit the model" in said


def test_broken_files_are_named_and_the_others_predicted(predict, tmp_path):
    folder = tmp_path / "data/camvid/train"
    whole = (folder / "00003.png").read_bytes()
    contents = {"00001.png": b"nothing", "00002.png": b"", "00003.png": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    words = ["--input", str(folder), str(tmp_path / "a.mp4"), "--batch-size", "2"]
    code, said = predict(*words, "--no-overlay")
    assert code == 2 and "Predicted 3 images and 0 videos" in said and "Traceback" not in said
    assert "4 of 7 inputs can't be used" in said and "can't be read as a video" in said
    assert all(str(folder / name) in said for name in contents)
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == [f"0000{k}_labels.png" for k in (0, 4, 5)]


def test_unicode_names_and_tiny_images(predict, tmp_path):
    folder = tmp_path / "Bilder/Straße 5"
    folder.mkdir(parents=True)
    for name, size in (("größe-図", (1, 1)), ("ligne à", (3, 200)), ("x.y", (9, 9))):
        Image.new("RGB", size, (50, 60, 70)).save(folder / f"{name}.png")
    code, said = predict("--input", str(tmp_path / "Bilder"))
    assert code == 0, said
    assert Image.open(tmp_path / "out/Straße 5/größe-図_labels.png").size == (1, 1)
    assert Image.open(tmp_path / "out/Straße 5/ligne à_overlay.png").size == (3, 200)
    assert Image.open(tmp_path / "out/Straße 5/x.y_labels.png").size == (9, 9)


def test_inputs_are_never_overwritten(predict, tmp_path):
    folder = tmp_path / "data/camvid/val"
    before = {p: p.read_bytes() for p in folder.iterdir()}
    code, said = predict("--input", str(folder), "--output", str(folder))
    assert code == 2 and "is also an --input" in said
    words = ["--official-values", "--output", str(folder)]
    code, said = predict("--input", str(folder / "00000.png"), *words)
    assert code == 2 and "would be written over an --input" in said
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    for _ in range(2):  # what the first run wrote is no input of the second
        code, said = predict("--input", str(folder), "--output", str(folder / "out"))
        assert code == 0 and "Predicted 2 images" in said


def test_an_output_that_cannot_be_written(predict, tmp_path):
    (tmp_path / "file").write_text("")
    image = str(tmp_path / "data/camvid/val/00000.png")
    code, said = predict("--input", image, "--output", str(tmp_path / "file/below"))
    assert code == 2 and "--output" in said and "can't be written" in said
    words = ["--input", str(tmp_path / "a/drive.mp4"), str(tmp_path / "b/drive.mp4")]
    for path in words[1:]:
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"")
    code, said = predict(*words)
    assert code == 2 and all(word in said for word in words[1:])
    assert "would both write" in said and "out/drive_overlay.mp4" in said


def make_images(folder: Path, *names: str, size: tuple[int, int] = (20, 10)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 99, 200)).save(folder / name)


def make_video(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(noise.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    writer.release()


def test_videos_in_folders(predict, tmp_path):
    folder = tmp_path / "mixed"
    make_images(folder, "a.png")
    make_video(folder / "day/drive.avi", 3)
    make_video(folder / "night/drive.avi", 4)
    for _ in range(2):  # the overlays of the first run are no inputs of the second
        code, said = predict("--input", str(folder), "--output", str(folder / "out"))
        assert code == 0 and "Predicted 1 images and 2 videos" in said, said
    assert (folder / "out/day/drive_overlay.mp4").is_file()
    assert len(list((folder / "out/night/drive").iterdir())) == 4
    make_video(tmp_path / "videos alone/x.avi", 1)
    assert predict("--input", str(tmp_path / "videos alone"))[0] == 0


# (inputs, flags, the two that clash, the file); a folder stands for the one of the test.
CLASHES = [
    (["."], ["a.png", "a.jpg"], [], ("a.jpg", "a.png"), "a_overlay.png"),
    ([".", "."], ["a.png"], [], ("a.png", "is given twice"), "a_overlay.png"),
    (["a.png", "below/a.png"], ["a.png", "below/a.png"], [], ("a.png", "below/a.png"), "a_o"),
    (["."], ["x.png", "x_overlay.png"], ["--official-values"], ("x.png", "x_overlay.png"), "x_o"),
    (["."], ["x.avi", "x.mp4"], [], ("x.avi", "x.mp4"), "x_overlay.mp4"),
    (["."], ["x.avi", "x.mp4"], ["--no-overlay"], ("x.avi", "x.mp4"), "x/000000"),
    (["."], ["x.avi", "x/000012.png"], ["--official-values"], ("x.avi", "x/000012.png"), "x/0000"),
    (["."], ["y.png", "y_labels.png/z.jpg"], [], ("y.png", "y_labels.png/z.jpg"), "y_labels.png"),
]


@pytest.mark.parametrize(("inputs", "files", "flags", "named", "written"), CLASHES)
def test_two_inputs_never_write_one_file(
    predict, tmp_path, inputs: list, files: list, flags: list, named: tuple, written: str
):
    folder = tmp_path / "in"
    for name in files:
        if name.endswith((".avi", ".mp4")):
            make_video(folder / name, 2)
        else:
            make_images(folder, name)
    code, said = predict("--input", *(str(folder / name) for name in inputs), *flags)
    assert code == 2 and "error: --input: " in said and "Traceback" not in said
    assert f"{tmp_path / 'out'}/{written}" in said
    for name in named:
        assert (name if " " in name else f"{folder}/{name} ") in said
    assert not (tmp_path / "out").exists()


def test_names_that_only_look_alike_do_not_clash(predict, tmp_path):
    make_images(tmp_path / "in", "x.png", "x_overlay.png", "x_labels.png", "x/000012.png")
    make_video(tmp_path / "in/x.avi", 2)
    code, said = predict("--input", str(tmp_path / "in"))
    assert code == 0, said
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*"))
    assert "x/000001.png" in written and "x/000012_labels.png" in written
    assert "x_overlay_labels.png" in written and "x_labels_overlay.png" in written


def test_many_clashes_are_counted(predict, tmp_path):
    make_images(tmp_path / "in", *(f"{k}.png" for k in range(20)))
    code, said = predict("--input", str(tmp_path / "in"), str(tmp_path / "in"))
    assert code == 2 and said.count("is given twice") == 5
    assert "15 more inputs like these" in said


def test_results_never_replace_an_input(predict, tmp_path):
    make_images(tmp_path / "out", "a.png", "a_overlay.png")
    before = (tmp_path / "out/a_overlay.png").read_bytes()
    files = [str(tmp_path / "out" / name) for name in ("a.png", "a_overlay.png")]
    code, said = predict("--input", *files)
    assert code == 2 and "a_overlay.png would be written over an --input" in said
    assert (tmp_path / "out/a_overlay.png").read_bytes() == before


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("flags", [[], ["TEST.WINDOW", "[8,8]"]])
def test_images_too_small_for_the_scales_are_named(predict, tmp_path, runtime, flags):
    make_images(tmp_path / "in", "0.png", "3.png")
    make_images(tmp_path / "in", "1.png", "2.png", size=(1, 3))
    words = ["--input", str(tmp_path / "in"), "--runtime", runtime, "--batch-size", "2"]
    code, said = predict(*words, "TEST.SCALES", "[0.5,1.0]", *flags)
    assert code == 2 and "Predicted 2 images" in said and "Traceback" not in said
    assert "2 of 4 inputs can't be used" in said
    for name in ("1.png", "2.png"):
        assert f"{tmp_path / 'in' / name}: an image of 3x1 pixels is too small" in said
    assert "TEST.SCALES 0.5, which makes it 1x0" in said
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [f"{k}_{what}.png" for k in (0, 3) for what in ("labels", "overlay")]


def test_a_data_set_of_other_classes(predict, tmp_path):
    words = ["--input", str(tmp_path / "data/camvid/val")]
    code, said = predict(*words, "--data-set", "cityscapes_fine_sem_seg_val")
    assert code == 2 and "--data-set cityscapes_fine_sem_seg_val" in said
    assert "NUM_CLASSES is 11" in said and "has 19 classes" in said
    assert not (tmp_path / "out").exists()
    code, said = predict(*words, "--data-set", "synthetic_scenes_val")  # as many, but others
    assert code == 2 and "--data-set synthetic_scenes_val: the classes of" in said
    assert "differ in names" in said and not (tmp_path / "out").exists()
    assert predict(*words, "--data-set", "camvid_val")[0] == 0


def test_the_configs_own_data_set_of_other_classes_is_remarked(predict, tmp_path, caplog):
    words = ["--input", str(tmp_path / "data/camvid/val"), "--num-gpus", "0"]
    with caplog.at_level("WARNING"):
        code, said = predict(*words, "DATASETS.TEST", "['cityscapes_fine_sem_seg_val']")
    assert code == 0, said
    assert "has 19 classes. Its colours and values aren't used" in caplog.text


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_video_that_ends_early_is_unusable(predict, tmp_path, runtime):
    make_video(tmp_path / "in/whole.avi", 10)
    make_video(tmp_path / "in/cut.avi", 10)
    data = (tmp_path / "in/cut.avi").read_bytes()
    (tmp_path / "in/cut.avi").write_bytes(data[: len(data) // 2])
    code, said = predict("--input", str(tmp_path / "in"), "--runtime", runtime)
    assert code == 2 and "Predicted 0 images and 1 videos" in said and "Traceback" not in said
    assert f"{tmp_path / 'in/cut.avi'} is damaged or incomplete: it announces 10 frames" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["whole", "whole_overlay.mp4"]


def test_a_descriptions_window_holds_for_predictions(configs, tmp_path, monkeypatch):
    """16-bit slices look to the network as they did in training."""
    domains.write_medical(configs, 4)
    content = {
        "classes": list(domains.SLICE_VALUES),
        "labels": {"mapping": {v: n for n, v in domains.SLICE_VALUES.items()}, "ignore": 65535},
        "images": {"window": [0, 4095]},
        "files": {"csv": "slices.csv"},
        "splits": {"train": {}, "val": {}},
    }
    (configs / "slices.yaml").write_text(yaml.safe_dump(content))
    path = configs / "teacher.yaml"
    teacher = yaml.safe_load(path.read_text())
    teacher["DATASETS"] = {"TRAIN": ["slices.yaml:train"], "TEST": ["slices.yaml:val"]}
    path.write_text(yaml.safe_dump(teacher))
    seen = []
    original = Predictor.__call__
    monkeypatch.setattr(
        Predictor,
        "__call__",
        lambda self, images: (seen.extend(images), original(self, images))[1],
    )
    words = ["--runtime", "embedded", "--config-file", str(path), "--num-gpus", "0"]
    words += ["--weights", str(tmp_path / "teacher.pth"), "--input", str(configs / "scans")]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    dataset = load_dataset(f"{configs}/slices.yaml:val")
    expected = [DenseMapper(LabelReader(dataset.label_map))(r)["image"] for r in dataset.records]
    for image, sample in zip(seen[-len(expected) :], expected, strict=True):
        np.testing.assert_array_equal(image.transpose(2, 0, 1), sample.numpy())
    (configs / "slices.yaml").unlink()
    assert main([*words, "--output", str(tmp_path / "again")]) == 2


def write_cityscapes_test(root: Path) -> list[str]:
    """Images of the test split, whose labels nobody has; returns their names."""
    names = []
    for city, count in (("berlin", 2), ("munich", 1)):
        folder = root / f"cityscapes/leftImg8bit/test/{city}"
        folder.mkdir(parents=True)
        for index in range(count):
            names.append(f"{city}_{index:06d}_000019")
            pixels = np.random.default_rng(index).integers(0, 256, (40, 80, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{names[-1]}_leftImg8bit.png")
    return names


def documented_server_command() -> list[str]:
    text = (Path(__file__).parents[2] / "docs/datasets.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^(python tools/predict.py .*--official-values.*)$", text, re.MULTILINE)
    return shlex.split(line)[2:]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_documented_command_for_the_cityscapes_server(configs, tmp_path, monkeypatch, runtime):
    root = tmp_path / "data"
    names = write_cityscapes_test(root)
    cfg = configure(str(configs / "student.yaml"), ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19"])
    torch.save({"model": build_segmentor_from_config(cfg).state_dict()}, tmp_path / "s.pth")
    words = documented_server_command()
    here = {
        "configs/cityscapes/afdcd_deeplabv3_r18.yaml": str(configs / "distilled.yaml"),
        "$DETECTRON2_DATASETS/cityscapes/leftImg8bit/test": f"{root}/cityscapes/leftImg8bit/test",
        "test_server": str(tmp_path / "server"),
    }
    words = [here.get(word, word) for word in words]
    words += ["--runtime", runtime, "--num-gpus", "0", "--weights", str(tmp_path / "s.pth")]
    words += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19"]
    words += ["DATASETS.TEST", "['cityscapes_fine_sem_seg_val']"]
    assert main(words) == 0
    written = [p for p in (tmp_path / "server").rglob("*") if p.is_file()]
    for name in names:
        # The server takes the one file whose name begins so, in any folder.
        (path,) = [p for p in written if fnmatch.fnmatch(p.name, f"{name}*.png")]
        with Image.open(path) as image:
            assert image.mode == "L" and image.size == (80, 40)
            assert set(np.unique(np.array(image)).tolist()) <= set(IDS)
    assert len(written) == len(names)
