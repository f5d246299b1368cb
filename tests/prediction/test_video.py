"""Videos are written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from afdcd.data import DataError
from afdcd.prediction import predict_video
from afdcd.tasks import PredictionStyle, SemanticSegmentation

TASK, STYLE = SemanticSegmentation.without_data(1), PredictionStyle()


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(frames):
        writer.write(np.full((48, 64, 3), 40 * shade, np.uint8))
    writer.release()


def zeros(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.zeros(image.shape[:2], int) for image in images]


def frames_of(path: Path) -> int:
    reader = cv2.VideoCapture(str(path))
    count = 0
    while reader.read()[0]:
        count += 1
    return count


def test_every_frame(tmp_path):
    write_video(tmp_path / "drive.avi", 5)
    predict_video(tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=2)
    assert frames_of(tmp_path / "out/drive_overlay.mp4") == 5
    labels = sorted(p.name for p in (tmp_path / "out/drive").iterdir())
    assert labels == [f"{k:06d}.png" for k in range(5)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["drive", "drive_overlay.mp4"]


def test_one_that_is_interrupted_leaves_the_one_before(tmp_path):
    write_video(tmp_path / "drive.avi", 2)
    predict_video(tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=1)
    write_video(tmp_path / "drive.avi", 5)
    seen = []

    def interrupted(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        seen.append(images)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return zeros(images)

    with pytest.raises(KeyboardInterrupt):
        predict_video(
            tmp_path / "drive.avi", tmp_path / "out", interrupted, TASK, STYLE, batch_size=1
        )
    assert frames_of(tmp_path / "out/drive_overlay.mp4") == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["drive", "drive_overlay.mp4"]


def announcing(monkeypatch, count: float, rate: float = 10, gap: float = 100) -> None:
    """Videos announce this many frames, which come every ``gap`` milliseconds."""
    get = cv2.VideoCapture.get
    reads = []

    class Reader:
        def __init__(self, path: str) -> None:
            self.reader = cv2_reader(path)

        def __getattr__(self, name: str):
            return getattr(self.reader, name)

        def read(self):
            reads.append(None)
            return self.reader.read()

        def get(self, key: int) -> float:
            answers = {
                cv2.CAP_PROP_FRAME_COUNT: count,
                cv2.CAP_PROP_FPS: rate,
                cv2.CAP_PROP_POS_MSEC: (len(reads) - 1) * gap,
            }
            return answers[key] if key in answers else get(self.reader, key)

    cv2_reader = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Reader)


def whole(tmp_path: Path, frames: int) -> bool:
    write_video(tmp_path / "drive.avi", frames)
    try:
        predict_video(tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=2)
    except DataError as error:
        assert f"and {frames} can be read" in str(error) and str(tmp_path / "drive.avi") in str(
            error
        )
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        return False
    assert len(list((tmp_path / "out/drive").iterdir())) == frames
    return True


@pytest.mark.parametrize(
    ("announced", "accepted"),
    [(5, True), (7, True), (8, False), (500, False), (3, True), (0, True), (-1, True)]
    + [(float("nan"), True), (-9.2e18, True), (9.2e18, True)],
)
def test_announced_lengths(tmp_path, monkeypatch, announced: float, accepted: bool):
    announcing(monkeypatch, announced)
    assert whole(tmp_path, 5) == accepted


def test_recordings_of_varying_rate_are_whole(tmp_path, monkeypatch):
    """A container that has no rate says 1000 a second, and counts by it."""
    announcing(monkeypatch, 500, rate=1000, gap=100)
    assert whole(tmp_path, 5)


def test_recordings_of_varying_rate_that_end_early_are_not(tmp_path, monkeypatch):
    announcing(monkeypatch, 5000, rate=1000, gap=100)
    assert not whole(tmp_path, 5)


@pytest.mark.parametrize("kind", [("MJPG", ".avi"), ("MJPG", ".mkv"), ("mp4v", ".mp4")])
@pytest.mark.parametrize("damage", ["cut", "blank"])
def test_damaged_files(tmp_path, kind: tuple[str, str], damage: str):
    path = tmp_path / f"drive{kind[1]}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*kind[0]), 10, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(20):
        writer.write(noise.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    writer.release()
    predict_video(path, tmp_path / "out", zeros, TASK, STYLE, batch_size=3)
    assert frames_of(tmp_path / "out/drive_overlay.mp4") == 20
    data, half = path.read_bytes(), path.stat().st_size // 2
    rest = b"" if damage == "cut" else bytes(half // 2) + data[half + half // 2 :]
    path.write_bytes(data[:half] + rest)
    with pytest.raises(DataError, match=r"is damaged or incomplete|can't be read as a video"):
        predict_video(path, tmp_path / "new", zeros, TASK, STYLE, batch_size=3)
    assert not list((tmp_path / "new").rglob("*"))
    # What an earlier run has made of the whole video stays.
    with pytest.raises(DataError):
        predict_video(path, tmp_path / "out", zeros, TASK, STYLE, batch_size=3)
    assert frames_of(tmp_path / "out/drive_overlay.mp4") == 20
    assert len(list((tmp_path / "out/drive").iterdir())) == 20


def test_a_name_of_its_own(tmp_path):
    write_video(tmp_path / "drive.avi", 2)
    predict_video(
        tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=1, name="a/b.c"
    )
    written = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out/a").rglob("*.*"))
    assert written == [
        "out/a/b.c",
        "out/a/b.c/000000.png",
        "out/a/b.c/000001.png",
        "out/a/b.c_overlay.mp4",
    ]


def test_nothing_is_written_of_a_broken_one(tmp_path):
    (tmp_path / "drive.avi").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read as a video"):
        predict_video(tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=1)
    assert not (tmp_path / "out").exists()
