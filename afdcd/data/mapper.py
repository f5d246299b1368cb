"""The paper's mapper: from a record to a sample, with random scale, crop and flip in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from afdcd.data.crop_resize import (
    Crop,
    crop_of_resized_image,
    crop_of_resized_labels,
    resized_size,
)
from afdcd.data.disk_cache import DiskCache
from afdcd.data.images import read_image
from afdcd.data.labels import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.spec import Record

# The loader's processes are the parallelism; OpenCV's own threads would fight them.
cv2.setNumThreads(0)


class Draw(NamedTuple):
    """One sample's random choices. ``top`` and ``left`` are shares 0..1 of the room there is."""

    scale: float
    top: float
    left: float
    flip: bool


class TrainingAugmentation:
    """Random scale, padding, random crop and horizontal flip, as published.

    The image is scaled bilinearly, the labels by nearest neighbour; what is smaller than the crop
    is padded at the bottom and right with the mean colour and the ignore label.

    Args:
        crop_size: (height, width) of the samples.
        scales: smallest and largest factor.
        scale_step: factors are ``scales[0] + k * scale_step``. The paper: 0.5 to 2.0 by 0.1.
        flip: whether half of the samples are mirrored.
        pad_value: BGR (or RGB, as the image) colour to pad with.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        *,
        scales: tuple[float, float] = (0.5, 2.0),
        scale_step: float = 0.1,
        flip: bool = True,
        pad_value: tuple[float, ...] = (0.0, 0.0, 0.0),
    ) -> None:
        if min(crop_size) < 1:
            raise ValueError(f"crop_size must be (height, width) above 0; got {crop_size}")
        if not 0 < scales[0] <= scales[1] or scale_step <= 0:
            raise ValueError(
                "scales must be (smallest, largest) above 0 and scale_step above 0; "
                f"got {scales} and {scale_step}"
            )
        self.crop_size = crop_size
        self.scales = scales
        self.scale_step = scale_step
        self.flip = flip
        self.pad_value = np.asarray(pad_value, dtype=np.float32)

    def draw(self, rng: np.random.Generator) -> Draw:
        """Choose scale, crop position and flip."""
        steps = round((self.scales[1] - self.scales[0]) / self.scale_step)
        # Rounded, so that 0.5 + 2 * 0.1 is the 0.7 that decides the resized size.
        scale = round(self.scales[0] + int(rng.integers(steps + 1)) * self.scale_step, 10)
        top, left = rng.random(2)
        return Draw(scale, float(top), float(left), self.flip and bool(rng.random() < 0.5))

    def apply(
        self, image: np.ndarray, labels: np.ndarray, draw: Draw
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment an image [H, W, 3] and its labels [H, W] with the given choices.

        Returns:
            image [h, w, 3], uint8, or float32 where it was padded with the mean colour; labels
            uint8 [h, w]; h and w are ``crop_size``.
        """
        height, width = self.crop_size
        full = resized_size((image.shape[0], image.shape[1]), draw.scale)
        # floor(u * (room + 1)) is uniform over 0..room.
        top = int(draw.top * (max(full[0] - height, 0) + 1))
        left = int(draw.left * (max(full[1] - width, 0) + 1))
        crop = Crop(top, min(top + height, full[0]), left, min(left + width, full[1]))
        image = crop_of_resized_image(image, draw.scale, crop)
        labels = crop_of_resized_labels(labels, draw.scale, crop)
        pad_h, pad_w = height - image.shape[0], width - image.shape[1]
        if pad_h or pad_w:
            padded = np.empty((height, width, 3), dtype=np.float32)
            padded[:] = self.pad_value
            padded[: image.shape[0], : image.shape[1]] = image
            image = padded
            labels = np.pad(labels, ((0, pad_h), (0, pad_w)), constant_values=IGNORE)
        if draw.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        return image, labels


class SegmentationMapper:
    """Reads a record's files and makes a sample of them.

    Args:
        label_map: of the label files.
        augmentation: in training; None keeps the whole image.
        short_side: the shorter side is first resized to this many pixels (the image by area
            averaging, the labels by nearest neighbour); 0 keeps the size.
        image_format: ``BGR`` or ``RGB``.
        with_labels: whether samples get ``sem_seg``; then ``sem_seg`` has the image's size.
        cache_bytes: up to so many bytes of read (and resized) files are kept in memory.
        cache_dir: folder where read (and resized) files are kept uncompressed, so that a crop is
            all that is read of them the next time; used with an augmentation.
    """

    def __init__(
        self,
        label_map: LabelMap,
        augmentation: TrainingAugmentation | None = None,
        *,
        short_side: int = 0,
        image_format: str = "BGR",
        with_labels: bool = True,
        cache_bytes: int = 0,
        cache_dir: str | Path = "",
    ) -> None:
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"image_format must be BGR or RGB; got {image_format!r}")
        self.label_map = label_map
        self.augmentation = augmentation
        self.short_side = short_side
        self.image_format = image_format
        self.with_labels = with_labels
        self._cache: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        self._cache_room = cache_bytes
        how = f"{label_map} {short_side} {image_format}"
        self._disk = DiskCache(Path(cache_dir), how) if cache_dir and augmentation else None

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Make a sample.

        Args:
            record: ``file_name``, ``sem_seg_file_name``, ``height``, ``width``, ...
            rng: source of the random choices; needed with an augmentation.

        Returns:
            the record, with ``image`` [3, H, W] in 0..255 (uint8, or float32 where it was padded)
            and, with labels, ``sem_seg`` int64 [H, W], 255 = ignore.

        Raises:
            DataError: a file is missing or unreadable, sizes differ, or a label value is unknown.
        """
        image, labels = self._read(record)
        if self.augmentation is not None:
            assert labels is not None
            draw = self.augmentation.draw(rng or np.random.default_rng())
            image, labels = self.augmentation.apply(image, labels, draw)
        sample = dict(record)
        sample["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if labels is not None:
            sample["sem_seg"] = torch.from_numpy(labels.astype(np.int64))
        return sample

    def _read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        key = record["file_name"]
        if key in self._cache:
            return self._cache[key]
        if self._disk is not None and (stored := self._disk.get(record)) is not None:
            return stored
        image = read_image(record["file_name"], record.get("window"))
        labels = None
        if self.with_labels or self.augmentation is not None:
            labels = read_labels(record["sem_seg_file_name"], self.label_map)
            if image.shape[:2] != labels.shape:
                raise DataError(
                    f"{record['file_name']} is {image.shape[0]}x{image.shape[1]} but its label "
                    f"map {record['sem_seg_file_name']} is {labels.shape[0]}x{labels.shape[1]}"
                )
        if self.image_format == "RGB":
            image = image[:, :, ::-1]
        image, labels = resize_short_side(image, labels, self.short_side)
        if self._disk is not None and labels is not None:
            self._disk.put(record, image, labels)
        size = image.nbytes + (0 if labels is None else labels.nbytes)
        if size <= self._cache_room:
            self._cache[key] = image, labels
            self._cache_room -= size
        return image, labels


def resize_short_side(
    image: np.ndarray, labels: np.ndarray | None, short_side: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize so that the shorter side has so many pixels; 0 keeps the size.

    The image [H, W, 3] by area averaging where it shrinks, else bilinearly; labels [H, W] by
    nearest neighbour.
    """
    height, width = image.shape[:2]
    if not short_side or short_side == min(height, width):
        return image, labels
    factor = short_side / min(height, width)
    size = (round(width * factor), round(height * factor))
    shrinks = factor < 1
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if labels is not None:
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return image, labels
