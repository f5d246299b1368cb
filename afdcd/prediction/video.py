"""Videos: predicted frame by frame."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from afdcd.data import DataError
from afdcd.tasks import PredictionStyle, Task

DEFAULT_RATE = 25.0
# Frames fewer than announced that are no damage: containers miscount.
_MISCOUNT, _MISCOUNT_SHARE = 2, 0.01
# A year of frames; more is no count.
_MOST = 1e9
# FFmpeg would say what it thinks of every damaged block; OpenCV reads this at the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def overlay_name(name: str) -> str:
    """The overlays' file of a video called so."""
    return f"{name}_overlay.mp4"


def frame_name(number: int) -> str:
    """What a frame's files are called, from 0 on."""
    return f"{number:06d}"


def predict_video(
    source: Path,
    folder: Path,
    predictor: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    task: Task,
    style: PredictionStyle,
    *,
    batch_size: int,
    name: str = "",
) -> None:
    """Write the frames' overlays as a video, their values as numbered files in a folder.

    All of them are there when the video is whole; of one that fails nothing is.

    Args:
        source: the video.
        folder: to write to.
        predictor: gives the values [H, W] of BGR images [H, W, 3], e.g. a `Predictor`.
        task: draws and writes them.
        style: what is written, and how.
        batch_size: frames that the predictor gets at once.
        name: of what is written, below the folder; by default the video's.

    Raises:
        DataError: the video can't be read, or ends before its announced length.
        OSError: the results can't be written.
    """
    frames = _Frames(source)
    target = folder / overlay_name(name or source.stem)
    values_folder = folder / (name or source.stem)
    unfinished = target.with_name(f".{target.stem}.unfinished{target.suffix}")
    staged = values_folder.with_name(f".{values_folder.name}.unfinished")
    writer = None
    count = 0
    named = replace(style, plain_names=True)
    shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed
    try:
        for batch in frames.batches(batch_size):
            for image, values in zip(batch, predictor(batch), strict=True):
                if style.overlay:
                    writer = writer or _writer(unfinished, image, frames.rate)
                    writer.write(task.overlay(image, values, style.alpha))
                if style.values:
                    task.write_values(staged, frame_name(count), values, named)
                count += 1
        if problem := frames.problem():
            raise DataError(problem)
        if writer is not None:
            writer.release()
            unfinished.replace(target)
        _move_files(staged, values_folder)
        _drop_later_frames(values_folder, count)
    finally:
        frames.release()
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(staged, ignore_errors=True)


def _writer(path: Path, image: np.ndarray, rate: float) -> cv2.VideoWriter:
    """Of frames like ``image``."""
    fps = rate if 0 < rate < 1000 else DEFAULT_RATE
    size = (image.shape[1], image.shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise OSError(f"can't write a video to {path.parent}")
    return writer


def _drop_later_frames(folder: Path, count: int) -> None:
    """Delete the frames that a longer video of the same name has left."""
    for path in folder.glob("[0-9]*") if folder.is_dir() else ():
        if (found := re.fullmatch(r"(\d{6,})\.\w+", path.name)) and int(found[1]) >= count:
            path.unlink()


def _move_files(source: Path, target: Path) -> None:
    """Move the files of a folder, and of those below, to the same places in another one."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


class _Frames:
    """The frames of a video, and whether they are all there.

    Args:
        source: the video.

    Attributes:
        rate: frames a second, as it is announced.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._reader: Any = cv2.VideoCapture(str(source))
        self.rate = float(self._reader.get(cv2.CAP_PROP_FPS))
        announced = float(self._reader.get(cv2.CAP_PROP_FRAME_COUNT))
        self._announced = int(announced) if 0 < announced < _MOST else 0  # what isn't known
        self._times: list[float] = []  # of the frames that were read, in seconds

    def batches(self, size: int) -> Iterator[list[np.ndarray]]:
        """All frames, BGR [H, W, 3], at most ``size`` at once."""
        batch: list[np.ndarray] = []
        while True:
            there, image = self._reader.read()
            if there:
                batch.append(image)
                self._times.append(float(self._reader.get(cv2.CAP_PROP_POS_MSEC)) / 1000)
            if batch and (len(batch) == size or not there):
                yield batch
                batch = []
            if not there:
                return

    def problem(self) -> str:
        """What is wrong with a video whose frames have been read; empty for nothing."""
        read = len(self._times)
        if not read:
            return f"{self.source} can't be read as a video, or has no frames"
        tolerated = max(_MISCOUNT, _MISCOUNT_SHARE * self._announced)
        if self._announced - read <= tolerated or self._is_estimate():
            return ""
        return (
            f"{self.source} is damaged or incomplete: it announces {self._announced} frames, and "
            f"{read} can be read. Copy or download it again, or encode it anew"
        )

    def _is_estimate(self) -> bool:
        """Whether the announced count is an estimate from a rate that the video doesn't have.

        So it is with recordings of varying rate in MKV and WEBM: their frames reach to the end,
        each later after the one before than the rate says.
        """
        if self.rate <= 0 or len(self._times) < 2:
            return False
        length, gap = self._announced / self.rate, float(np.median(np.diff(self._times)))
        return gap * self.rate > 1.5 and self._times[-1] + 2 * gap >= length

    def release(self) -> None:
        """Close the file."""
        self._reader.release()
