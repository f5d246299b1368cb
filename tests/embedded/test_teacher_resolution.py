"""A teacher at its own resolution, averaged over scales, mirror images and other teachers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afdcd.data.mapper import TrainingAugmentation
from afdcd.distill.averaging import averaged_logits, to_grid
from afdcd.distill.teacher import FrozenTeacher
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor
from afdcd.utils.problems import SetupError

TEACHER = "MODEL.DISTILLER.TEACHER"
LOGITS = "sem_seg_head.predictor"


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without sharp edges, a row and column of which can be told by its colour."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    u, v = y / height, x / width
    return np.stack([255 * u, 255 * v, 127 + 127 * np.sin(6 * (u + v))], -1).astype(np.uint8)


@given(
    top=st.floats(0, 0.999),
    left=st.floats(0, 0.999),
    scale=st.sampled_from([0.5, 0.7, 1.0, 1.3, 2.0]),
    flip=st.booleans(),
    factor=st.sampled_from([1.5, 2.0, 3.0]),
)
def test_both_see_the_same_part_of_the_scene(top, left, scale, flip, factor):
    augmentation = TrainingAugmentation((32, 48), pad_value=(9.0, 9.0, 9.0))
    size = (40, 60)
    original = smooth(120, 180)
    small = cv2.resize(original, size[::-1], interpolation=cv2.INTER_AREA)
    rendered = cv2.resize(
        original,
        (round(60 * factor), round(40 * factor)),
        interpolation=cv2.INTER_AREA,
    )
    draw = augmentation.draw(np.random.default_rng(0))._replace(
        scale=scale, top=top, left=left, flip=flip
    )
    view, _ = augmentation.apply(small, np.zeros(size, np.uint8), draw)
    larger = augmentation.apply_larger(rendered, draw, size=size, factor=factor)
    assert larger.shape == (round(32 * factor), round(48 * factor), 3)
    down = cv2.resize(np.asarray(larger, np.float32), (48, 32), interpolation=cv2.INTER_AREA)
    # Within the rounding of positions and sizes: about a pixel of the picture's slope.
    slope = 255 / (40 * scale)
    difference = np.abs(down - np.asarray(view, np.float32))[:-1, :-1, :2]
    shown = (np.asarray(view) != 9.0).any(-1)[:-1, :-1]
    assert np.median(difference[shown]) < slope / 2
    assert np.quantile(difference[shown], 0.9) < slope


def items(count: int, size: int = 32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": 255 * torch.rand(3, size, size, generator=generator), "height": 32, "width": 32}
        for _ in range(count)
    ]


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_segmentor(backbone="mobilenetv2", num_classes=4, width_mult=0.25).eval()


def test_logits_are_averaged_over_mirror_images_scales_and_teachers():
    batch = items(2)
    one, other = FrozenTeacher(network(1)), FrozenTeacher(network(2))
    plain = [teacher.features(batch, [LOGITS])[LOGITS] for teacher in (one, other)]
    mirrored = [{**item, "image": item["image"].flip(-1)} for item in batch]
    back = [t.features(mirrored, [LOGITS])[LOGITS].flip(-1) for t in (one, other)]
    expected = torch.stack([*plain, *back]).mean(0)
    both = FrozenTeacher(network(1), flip=True, others=[other])
    torch.testing.assert_close(both.features(batch, [LOGITS])[LOGITS], expected)
    # Other taps are the first teacher's, of the images as they are.
    res5 = "backbone.res5"
    got = both.features(batch, [res5, LOGITS])[res5]
    torch.testing.assert_close(got, one.features(batch, [res5])[res5])


@pytest.mark.parametrize("scales", [(1.0, 2.0), (2.0,)])
def test_scaled_logits_have_the_size_of_the_image_as_it_is(scales):
    seen: list[tuple[int, int]] = []

    def run_network(batch: list[dict[str, Any]]) -> torch.Tensor:
        image = torch.stack([item["image"] for item in batch])
        seen.append(tuple(image.shape[-2:]))
        return torch.nn.functional.avg_pool2d(image, 8)

    found = averaged_logits(run_network, items(2), scales=scales, flip=False)
    assert found.shape == (2, 3, 4, 4)
    assert (64, 64) in seen


def test_maps_are_averaged_down_to_the_students_grid():
    maps = torch.arange(36.0).reshape(1, 1, 6, 6)
    got = to_grid(maps, (48, 48), (16, 16))
    assert got.flatten().tolist() == [7, 10, 25, 28]
    torch.testing.assert_close(got, torch.nn.functional.avg_pool2d(maps, 3))
    assert to_grid(maps, (48, 48), (48, 48)) is maps


def train(configs: Path, output: Path, *overrides: str) -> dict[str, Any]:
    words = ["OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "3", *overrides]
    run(configure(str(configs / "distilled.yaml"), words))
    return torch.load(output / "model_final.pth", weights_only=True)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_run_at_half_its_files_size(configs, tmp_path, monkeypatch, caplog, recorded: bool):
    """48x64 files, a student at 24x32 and a teacher at 48x64."""
    seen: list[tuple[int, ...]] = []
    maps = FrozenTeacher._maps

    def watched(self: FrozenTeacher, inputs: list[dict[str, Any]], paths: list[str]) -> Any:
        seen.append(tuple(inputs[0]["image"].shape[-2:]))
        return maps(self, inputs, paths)

    monkeypatch.setattr(FrozenTeacher, "_maps", watched)
    overrides = [f"{TEACHER}.RESOLUTION", "2", "INPUT.MIN_SIZE_TRAIN", "[24]"]
    overrides += ["INPUT.MIN_SIZE_TEST", "24"]
    if recorded:
        overrides += [f"{TEACHER}.RECORD.FOLDER", str(tmp_path / "record")]
    with caplog.at_level(logging.INFO):
        first = train(configs, tmp_path / "a", *overrides)
    assert set(seen) == {(64, 64)}
    assert "Teacher on camvid_val" in caplog.text
    if recorded:
        second = train(configs, tmp_path / "b", *overrides)
        for name, value in first["model"].items():
            assert torch.equal(value, second["model"][name]), name


def test_other_teachers_in_a_run(configs, tmp_path):
    others = [[str(configs / "teacher.yaml"), str(configs.parent / "teacher.pth")]]
    alone = train(configs, tmp_path / "alone")
    twice = train(configs, tmp_path / "twice", f"{TEACHER}.OTHERS", str(others))
    for name, value in alone["model"].items():  # a teacher averaged with itself
        torch.testing.assert_close(value, twice["model"][name], rtol=1e-3, atol=1e-4)


def test_other_teachers_of_other_classes(configs, tmp_path):
    """As many classes, but others: their logits would be averaged without a word."""
    (configs / "scenes.yaml").write_text(
        "_BASE_: teacher.yaml\nDATASETS: {TRAIN: [synthetic_scenes_train]}\n"
    )
    others = [[str(configs / "scenes.yaml"), str(configs.parent / "teacher.pth")]]
    said = "OTHERS: .* was trained on synthetic_scenes_train: .* differ in names"
    with pytest.raises(SetupError, match=said):
        train(configs, tmp_path / "run", f"{TEACHER}.OTHERS", str(others))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("RESOLUTION", "2"), "would enlarge images"),
        (("RESOLUTION", "-1"), "^[^\n]*RESOLUTION must be above 0; got -1.0$"),
        (("RESOLUTION", "nan"), "^[^\n]*RESOLUTION must be above 0; got nan$"),
        (("RESOLUTION", "inf"), "^[^\n]*RESOLUTION must be at most 100; got inf$"),
        (("RESOLUTION", "1.01", "INPUT.MIN_SIZE_TRAIN", "[24]"), "isn't a whole number"),
        (("SCALES", "[]"), "at least one"),
        (("OTHERS", "[['teacher.yaml']]"), r"takes \[config file, weights\]"),
        (("OTHERS", "[['no.yaml', 'no.pth']]"), "no.yaml"),
    ],
)
def test_errors(configs, tmp_path, overrides: tuple[str, ...], named: str):
    with pytest.raises(SetupError, match=named):
        train(configs, tmp_path / "run", f"{TEACHER}.{overrides[0]}", *overrides[1:])
