"""Training samples per second on one core, loaded plainly and by the mapper."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from afdcd.data import IGNORE, DenseMapper, LabelMap, TrainingAugmentation
from afdcd.data.cityscapes import IDS
from afdcd.data.mapper import Draw
from afdcd.data.spec import Record
from afdcd.data.targets import LabelReader
from afdcd.models.segmentor import PIXEL_MEAN

MEAN = np.array(PIXEL_MEAN, dtype=np.float32)
Load = Callable[[Record, np.random.Generator], torch.Tensor]


def measure(
    records: list[Record],
    label_map: LabelMap,
    crop: tuple[int, int],
    samples: int,
    folder: Path,
) -> dict[str, float]:
    """Images per second of each way to load, in turns on the same random choices."""
    augmentation = TrainingAugmentation(crop, pad_value=tuple(PIXEL_MEAN))
    loaders: dict[str, Load] = {
        "plain": lambda record, rng: plain_sample(record, label_map, augmentation, rng)[0],
        "mapper": _normalized(DenseMapper(LabelReader(label_map), augmentation)),
        "mapper, decoded files": _normalized(
            DenseMapper(LabelReader(label_map), augmentation, cache_dir=folder / "cache")
        ),
    }
    seconds = dict.fromkeys(loaders, 0.0)
    for load in loaders.values():  # fills the caches, the operating system's too
        for record in records:
            load(record, np.random.default_rng(0))
    for number in range(samples):
        for name, load in loaders.items():
            rng = np.random.default_rng(number)
            start = time.perf_counter()
            load(records[number % len(records)], rng)
            seconds[name] += time.perf_counter() - start
    return {name: samples / spent for name, spent in seconds.items()}


def _normalized(mapper: DenseMapper) -> Load:
    mean = torch.from_numpy(MEAN)[:, None, None]

    def load(record: Record, rng: np.random.Generator) -> torch.Tensor:
        return mapper(record, rng)["image"] - mean

    return load


def plain_sample(
    record: Record,
    label_map: LabelMap,
    augmentation: TrainingAugmentation,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Load a sample the plain way: decode all, resize all, crop, normalise, pad, flip."""
    image = cv2.imread(record["file_name"], cv2.IMREAD_COLOR)
    assert image is not None
    labels = label_map.table()[np.asarray(Image.open(record["sem_seg_file_name"]))].astype(np.uint8)
    draw: Draw = augmentation.draw(rng)
    scale = draw.scale
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    height, width = augmentation.crop_size
    top = int(draw.top * (max(len(labels) - height, 0) + 1))
    left = int(draw.left * (max(labels.shape[1] - width, 0) + 1))
    normalized = image[top : top + height, left : left + width].astype(np.float32) - MEAN
    labels = labels[top : top + height, left : left + width]
    pad = ((0, height - len(labels)), (0, width - labels.shape[1]))
    normalized = np.pad(normalized, (*pad, (0, 0)))
    labels = np.pad(labels, pad, constant_values=IGNORE)
    if draw.flip:
        normalized, labels = normalized[:, ::-1], labels[:, ::-1]
    return (
        torch.from_numpy(np.ascontiguousarray(normalized.transpose(2, 0, 1))),
        torch.from_numpy(labels.astype(np.int64)),
    )


def draw_files(folder: Path, count: int, size: tuple[int, int], kind: str) -> list[Record]:
    """Smooth images with fine noise, which compress about as photographs do, and label maps."""
    records = []
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (size[0] // 32 + 1, size[1] // 32 + 1, 3), np.uint8)
        smooth = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(-3, 4, smooth.shape)
        image = np.clip(smooth.astype(np.int16) + noise, 0, 255).astype(np.uint8)
        values = np.array([*IDS, 0], np.uint8)
        blocks = rng.choice(values, (size[0] // 32 + 1, size[1] // 32 + 1))
        labels = cv2.resize(blocks, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        paths = folder / f"{index}.{kind}", folder / f"{index}_labels.png"
        for path, pixels in zip(paths, (image, labels), strict=True):
            if not cv2.imwrite(str(path), pixels):
                raise OSError(f"can't write {path}")
        records.append(
            {
                "file_name": str(paths[0]),
                "sem_seg_file_name": str(paths[1]),
                "height": size[0],
                "width": size[1],
                "image_id": str(index),
            }
        )
    return records
