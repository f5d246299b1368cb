"""The paper's mapper: from a record to a sample, with random scale, crop and flip in training."""

from __future__ import annotations

import copy
import math
from dataclasses import KW_ONLY, dataclass
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
from afdcd.data.labels import IGNORE, DataError
from afdcd.data.spec import Record
from afdcd.data.targets import TargetReader, size_problem
from afdcd.utils.sample_keys import TEACHER_IMAGE, UNLABELED

# The loader's processes are the parallelism; OpenCV's own threads would fight them.
cv2.setNumThreads(0)


# Of a training image's scales.
LARGEST = 100.0


class Draw(NamedTuple):
    """One sample's random choices. ``top`` and ``left`` are shares 0..1 of the room there is."""

    scale: float
    top: float
    left: float
    flip: bool


@dataclass(frozen=True)
class TrainingAugmentation:
    """Random scale, padding, random crop and horizontal flip, as published.

    The image is scaled bilinearly, the target by nearest neighbour; what is smaller than the crop
    is padded at the bottom and right with the mean colour and a target that doesn't count.

    Attributes:
        crop_size: (height, width) of the samples.
        scales: smallest and largest factor.
        scale_step: factors are ``scales[0] + k * scale_step``. The paper: 0.5 to 2.0 by 0.1.
        flip: whether half of the samples are mirrored.
        pad_value: BGR (or RGB, as the image) colour to pad with.

    Raises:
        ValueError: a value that can't work.
    """

    crop_size: tuple[int, int]
    _: KW_ONLY
    scales: tuple[float, float] = (0.5, 2.0)
    scale_step: float = 0.1
    flip: bool = True
    pad_value: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        crop, scales = self.crop_size, self.scales
        if not all(isinstance(side, int) for side in crop) or min(crop) < 1:
            raise ValueError(f"crop_size must be (height, width) above 0; got {crop}")
        if not 0 < scales[0] <= scales[1] <= LARGEST or not 0 < self.scale_step < math.inf:
            raise ValueError(
                f"scales must be (smallest, largest) from 0 to {LARGEST:g} and scale_step above 0; "
                f"got {scales} and {self.scale_step}"
            )

    def draw(self, rng: np.random.Generator) -> Draw:
        """Choose scale, crop position and flip."""
        steps = round((self.scales[1] - self.scales[0]) / self.scale_step)
        # Rounded, so that 0.5 + 2 * 0.1 is the 0.7 that decides the resized size.
        scale = round(self.scales[0] + int(rng.integers(steps + 1)) * self.scale_step, 10)
        top, left = rng.random(2)
        return Draw(scale, float(top), float(left), self.flip and bool(rng.random() < 0.5))

    def crop(self, size: tuple[int, int], draw: Draw) -> Crop:
        """What a draw shows of an image of this (height, width), in the scaled image's pixels."""
        height, width = self.crop_size
        full = resized_size(size, draw.scale)
        # floor(u * (room + 1)) is uniform over 0..room.
        top = int(draw.top * (max(full[0] - height, 0) + 1))
        left = int(draw.left * (max(full[1] - width, 0) + 1))
        return Crop(top, min(top + height, full[0]), left, min(left + width, full[1]))

    def apply(
        self, image: np.ndarray, target: np.ndarray, draw: Draw, *, pad_target: float = IGNORE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment an image [H, W, 3] and its target [H, W] with the given choices.

        Args:
            image: uint8.
            target: of any dtype; resized by nearest neighbour.
            draw: the choices.
            pad_target: value of the target where the image is padded: one that doesn't count.

        Returns:
            image [h, w, 3], uint8, or float32 where it was padded with the mean colour; target
            [h, w]; h and w are ``crop_size``.
        """
        crop = self.crop((image.shape[0], image.shape[1]), draw)
        image = crop_of_resized_image(image, draw.scale, crop)
        target = crop_of_resized_labels(target, draw.scale, crop)
        height, width = self.crop_size
        pad_h, pad_w = height - image.shape[0], width - image.shape[1]
        if pad_h or pad_w:
            image = self._padded(image, self.crop_size)
            target = np.pad(target, ((0, pad_h), (0, pad_w)), constant_values=pad_target)
        if draw.flip:
            image, target = image[:, ::-1], target[:, ::-1]
        return image, target

    def apply_larger(
        self, image: np.ndarray, draw: Draw, *, size: tuple[int, int], factor: float
    ) -> np.ndarray:
        """What a draw shows of a larger (or smaller) rendering of the same image.

        Args:
            image: [H, W, 3], ``factor`` times as high and wide as the one that the draw is for.
            draw: the choices.
            size: height and width of the one that the draw is for.
            factor: see ``image``.

        Returns:
            [h, w, 3] of ``factor`` times ``crop_size``, the same part of the scene as `apply`'s.
        """
        height, width = (round(side * factor) for side in self.crop_size)
        crop = self.crop(size, draw)
        full = resized_size((image.shape[0], image.shape[1]), draw.scale)
        top, left = round(crop.top * factor), round(crop.left * factor)
        larger = Crop(top, min(top + height, full[0]), left, min(left + width, full[1]))
        image = crop_of_resized_image(image, draw.scale, larger)
        if image.shape[:2] != (height, width):
            image = self._padded(image, (height, width))
        return image[:, ::-1] if draw.flip else image

    def _padded(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        padded = np.empty((*size, 3), dtype=np.float32)
        padded[:] = np.asarray(self.pad_value, dtype=np.float32)
        padded[: image.shape[0], : image.shape[1]] = image
        return padded


class DenseMapper:
    """Reads a record's files and makes a sample of them.

    Args:
        targets: how the records' targets are read; None gives samples without targets.
        augmentation: in training; None keeps the whole image.
        short_side: the shorter side is first resized to this many pixels (the image by area
            averaging, the target by nearest neighbour); 0 keeps the size.
        image_format: ``BGR`` or ``RGB``.
        cache_bytes: up to this many bytes of read (and resized) files are kept in memory.
        cache_dir: folder where read (and resized) files are kept uncompressed, so that a crop is
            all that is read of them the next time; used with an augmentation.
        teacher_factor: with another value than 1, samples also hold ``teacher_image``, what they
            show at so many times the resolution, rendered from the file; used with an augmentation.
    """

    def __init__(
        self,
        targets: TargetReader | None,
        augmentation: TrainingAugmentation | None = None,
        *,
        short_side: int = 0,
        image_format: str = "BGR",
        cache_bytes: int = 0,
        cache_dir: str | Path = "",
        teacher_factor: float = 1.0,
    ) -> None:
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"image_format must be BGR or RGB; got {image_format!r}")
        if augmentation is not None and targets is None:
            raise ValueError("an augmentation takes targets; got None for them")
        self.targets = targets
        self.augmentation = augmentation
        self.short_side = short_side
        self.image_format = image_format
        self.teacher_factor = teacher_factor
        self._cache: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray | None]] = {}
        self._cache_room = cache_bytes
        settings = f"{targets} {short_side} {image_format}"
        self._disk = DiskCache(Path(cache_dir), settings) if cache_dir and augmentation else None

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Make a sample.

        Args:
            record: ``file_name``, ``height``, ``width``, and what the targets' reader wants.
            rng: source of the random choices; needed with an augmentation.

        Returns:
            the record, with ``image`` [3, H, W] in 0..255 (uint8, or float32 where it was padded)
            and, with targets, the target [H, W] of the image's size under the reader's ``key``:
            int64 where it was read as whole numbers, else float32.

        Raises:
            DataError: a file is missing or unreadable, sizes differ, or a value is unknown.
        """
        image, target = self._read(record)
        sample = dict(record)
        if self.augmentation is not None and self.targets is not None:
            assert target is not None
            draw = self.augmentation.draw(rng or np.random.default_rng())
            pad, size = self.targets.pad_value, (image.shape[0], image.shape[1])
            image, target = self.augmentation.apply(image, target, draw, pad_target=pad)
            if hasattr(self.targets, "at_scale"):
                target = self.targets.at_scale(target, draw.scale)
            if self.teacher_factor != 1:
                larger = self._larger(record, draw, size)
                sample[TEACHER_IMAGE] = _as_tensor(larger)
        sample["image"] = _as_tensor(image)
        if target is not None and self.targets is not None:
            whole_numbers = np.issubdtype(target.dtype, np.integer)
            values = target.astype(np.int64 if whole_numbers else np.float32, order="C")
            sample[self.targets.key] = torch.from_numpy(values)
        return sample

    def without_teacher(self) -> DenseMapper:
        """The same mapper, of samples whose teacher is recorded."""
        plain = copy.copy(self)
        plain.teacher_factor = 1.0
        return plain

    def _larger(self, record: Record, draw: Draw, size: tuple[int, int]) -> np.ndarray:
        assert self.augmentation is not None
        image = read_image(record["file_name"], record.get("window"))
        if self.image_format == "RGB":
            image = image[:, :, ::-1]
        side = round(min(size) * self.teacher_factor)
        image, _ = resize_short_side(image, None, side)
        return self.augmentation.apply_larger(image, draw, size=size, factor=self.teacher_factor)

    def _target(self, record: Record, image: np.ndarray) -> np.ndarray:
        """A record's target; of an unlabelled image one that doesn't count anywhere."""
        assert self.targets is not None
        if not record.get(UNLABELED):
            return self.targets(record)
        value = self.targets.pad_value
        whole = isinstance(value, int) and 0 <= value <= np.iinfo(np.uint8).max
        return np.full(image.shape[:2], value, np.uint8 if whole else np.float32)

    def _read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        key = record["file_name"], bool(record.get(UNLABELED))
        if key in self._cache:
            return self._cache[key]
        if self._disk is not None and (stored := self._disk.get(record)) is not None:
            return stored
        image = read_image(record["file_name"], record.get("window"))
        target = None
        if self.targets is not None:
            target = self._target(record, image)
            if problem := size_problem(record, image, target):
                raise DataError(problem)
        if self.image_format == "RGB":
            image = image[:, :, ::-1]
        image, target = resize_short_side(image, target, self.short_side)
        if self._disk is not None and target is not None:
            self._disk.put(record, image, target)
        size = image.nbytes + (0 if target is None else target.nbytes)
        if size <= self._cache_room:
            self._cache[key] = image, target
            self._cache_room -= size
        return image, target


def _as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy("C"))


def resize_short_side(
    image: np.ndarray, target: np.ndarray | None, short_side: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize so that the shorter side has ``short_side`` pixels; 0 keeps the size.

    The image [H, W, 3] by area averaging where it shrinks, else bilinearly; the target [H, W] by
    nearest neighbour.
    """
    height, width = image.shape[:2]
    if not short_side or short_side == min(height, width):
        return image, target
    factor = short_side / min(height, width)
    size = (round(width * factor), round(height * factor))
    shrinks = factor < 1
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if target is not None:
        target = cv2.resize(target, size, interpolation=cv2.INTER_NEAREST)
    return image, target
