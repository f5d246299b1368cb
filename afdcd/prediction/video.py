"""Videos: predicted frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from afdcd.data import DataError
from afdcd.tasks import PredictionStyle, Task

DEFAULT_RATE = 25.0


def predict_video(
    source: Path,
    folder: Path,
    predictor: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    task: Task,
    style: PredictionStyle,
    *,
    batch_size: int,
) -> None:
    """Write the frames' overlays as a video, their values as numbered files in a folder.

    The video is there when it is whole.

    Args:
        source: the video.
        folder: to write to.
        predictor: gives the values [H, W] of BGR images [H, W, 3], e.g. a `Predictor`.
        task: draws and writes them.
        style: what is written, and how.
        batch_size: frames that the predictor gets at once.

    Raises:
        DataError: the video can't be read.
        OSError: the overlays can't be written.
    """
    reader = cv2.VideoCapture(str(source))
    rate = reader.get(cv2.CAP_PROP_FPS)
    target = folder / f"{source.stem}_overlay.mp4"
    unfinished = target.with_name(f".{target.stem}.unfinished{target.suffix}")
    writer = None
    frames = 0
    named = replace(style, plain_names=True)
    try:
        for batch in _frames(reader, batch_size):
            for image, values in zip(batch, predictor(batch), strict=True):
                if style.overlay:
                    writer = writer or _writer(unfinished, image, rate)
                    writer.write(task.overlay(image, values, style.alpha))
                if style.values:
                    task.write_values(folder / source.stem, f"{frames:06d}", values, named)
                frames += 1
        if writer is not None:
            writer.release()
            unfinished.replace(target)
    finally:
        reader.release()
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)
    if not frames:
        raise DataError(f"{source} can't be read as a video, or has no frames")


def _writer(path: Path, image: np.ndarray, rate: float) -> cv2.VideoWriter:
    """Of frames like ``image``."""
    fps = rate if 0 < rate < 1000 else DEFAULT_RATE
    size = (image.shape[1], image.shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise OSError(f"can't write a video to {path.parent}")
    return writer


def _frames(reader: Any, size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    while True:
        there, image = reader.read()
        if there:
            batch.append(image)
        if batch and (len(batch) == size or not there):
            yield batch
            batch = []
        if not there:
            return
