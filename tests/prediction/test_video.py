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


def test_nothing_is_written_of_a_broken_one(tmp_path):
    (tmp_path / "drive.avi").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read as a video"):
        predict_video(tmp_path / "drive.avi", tmp_path / "out", zeros, TASK, STYLE, batch_size=1)
    assert not (tmp_path / "out").exists()
