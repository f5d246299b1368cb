"""Depth maps: how stored values become metres, and reading them safely."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from afdcd.data.labels import DataError, LabelMap, image_size, read_stored_labels
from afdcd.data.spec import Color, DatasetSpec, Record
from afdcd.data.yaml_fields import DescriptionError, Fields, is_number

# Of labels in a description; each is its task's name, too. Relative depths are known up to a
# factor of their own for each image, relative disparities (1 / depth) up to a factor and an offset.
ENCODINGS = ("depth", "relative_depth", "relative_disparity")
# Of labels in a description, for these encodings.
KEYS = ("encoding", "scale", "invalid")
# A depth network has one output channel, which takes the place of the classes.
CHANNELS: tuple[str, ...] = ("depth",)
COLORS: tuple[Color, ...] = ((255, 255, 255),)
# Instead of classes. Nothing can read a depth map with it, and checks see that it is no plain one.
NO_LABELS = LabelMap(1, encoding="depth")
# Of a target's pixels that don't count: no depth is 0.
NO_DEPTH = 0.0


@dataclass(frozen=True)
class DepthForm:
    """What the values in depth files mean.

    Attributes:
        scale: metres in a stored value of 1. 0.001 for millimetres, 1/256 for KITTI.
        invalid: stored values without a depth. Values of 0 and below, infinite ones and NaN never
            have one.
        offset: added to stored values; 1 of disparities whose ``invalid`` leaves out 0, which
            then counts.

    Raises:
        ValueError: a value that can't work.
    """

    scale: float = 1.0
    invalid: tuple[float, ...] = (0.0,)
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale is the metres in a stored 1, above 0; got {self.scale}")


@dataclass(frozen=True)
class DepthSpec(DatasetSpec):
    """A data set of depth maps.

    Attributes:
        form: of its files.
    """

    task: str = "depth"
    form: DepthForm = DepthForm()


def as_depth(spec: DatasetSpec, form: DepthForm, task: str) -> DepthSpec:
    """A data set's spec as one of depth maps.

    Args:
        spec: what is known of it otherwise.
        form: of its files.
        task: one of `ENCODINGS`.
    """
    known = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return DepthSpec(**known | {"form": form, "task": task, "official": None})


def read_form(top: Fields) -> DepthForm | None:
    """What a description says of its depth files; None where its labels are others.

    Raises:
        DescriptionError: a key or value that can't be used.
    """
    content = top.raw("labels")
    if not isinstance(content, dict) or content.get("encoding") not in ENCODINGS:
        return None
    where = f"{top.where}: labels"
    if "classes" in top:
        raise DescriptionError(f"{top.where}: depth maps have no classes: leave classes out")
    labels = Fields(content, where, KEYS)
    scale = labels.raw("scale") if "scale" in labels else 1.0
    invalid = labels.raw("invalid") if "invalid" in labels else 0
    if not is_number(scale) or scale <= 0:
        raise DescriptionError(
            f"{where}: scale is the metres in a stored 1, a number above 0 such as 0.001; got "
            f"{scale!r}"
        )
    values = invalid if isinstance(invalid, list) else [invalid]
    if not all(is_number(value) for value in values):
        raise DescriptionError(
            f"{where}: invalid takes a stored value without a depth, or a list of them; got "
            f"{invalid!r}"
        )
    disparity = content["encoding"] == "relative_disparity"
    offset = 1.0 if disparity and 0 not in values else 0.0
    return DepthForm(float(scale), tuple(float(value) for value in values), offset)


@dataclass(frozen=True)
class DepthReader:
    """Depths in metres, float32 [H, W], from a record's file; see `TargetReader`."""

    form: DepthForm
    key: str = "sem_seg"
    pad_value: float = NO_DEPTH

    def __call__(self, record: Record) -> np.ndarray:
        return read_depth(record["sem_seg_file_name"], self.form)

    def at_scale(self, target: np.ndarray, scale: float) -> np.ndarray:
        """The depths of an enlarged image: what is seen ``scale`` times as large is as much nearer.

        Eigen et al. (see `afdcd.tasks.depth.loss`), section 3.4.
        """
        return (target / np.float32(scale)).astype(np.float32)


def read_depth(path: str | Path, form: DepthForm) -> np.ndarray:
    """Depths in metres, float32 [H, W]; `NO_DEPTH` where there is none.

    Raises:
        DataError: see `read_stored_depth`.
    """
    stored = read_stored_depth(path)
    valid = np.isfinite(stored) & (stored + form.offset > 0)
    for value in form.invalid:
        valid &= stored != value
    with np.errstate(over="ignore"):  # what is beyond float32 is no depth either
        values = np.where(valid, stored + form.offset, 0).astype(np.float32)
        meters = values * np.float32(form.scale)
    return np.where(np.isfinite(meters), meters, np.float32(NO_DEPTH))


def read_stored_depth(path: str | Path) -> np.ndarray:
    """Read a depth map as it is stored: [H, W], whole numbers or floating point.

    Args:
        path: of an array (``.npy``), OpenEXR (``.exr``, where OpenCV reads it), or an image with
            one channel: PNG or TIFF of 8 to 32 bits, or TIFF of 32-bit floating point.

    Raises:
        DataError: missing, unreadable, truncated, of another shape, or in a lossy format.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no depth map at {path}")
    if path.suffix.lower() == ".npy":
        values = np.asarray(_array(path))
    elif path.suffix.lower() == ".exr":
        values = _exr(path)
    else:
        values = _image(path)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError(
            f"{path} holds {values.dtype} of shape {list(values.shape)}, but a depth map is a "
            "number for each pixel, [height, width]: is it a colour picture of the depths?"
        )
    return values


def depth_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a depth map, from its header where that is possible.

    Raises:
        DataError: missing or no depth map.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".exr"):
        return image_size(path)
    shape = (_array(Path(path)) if suffix == ".npy" else _exr(Path(path))).shape
    if len(shape) != 2:
        raise DataError(f"{path} has the shape {list(shape)}, but a depth map is [height, width]")
    return shape[0], shape[1]


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds on broken files
        raise DataError(f"{path} can't be read as an array: {error}") from error


def _exr(path: Path) -> np.ndarray:
    try:
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None:
        raise DataError(
            f"{path} can't be read by OpenCV: it reads OpenEXR only if it was built so and "
            "OPENCV_IO_ENABLE_OPENEXR is 1 in the environment. Set that, or convert the file to "
            ".npy"
        )
    return values


def _image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode == "F":
                return np.array(image)
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{path} can't be read as a depth map: {error}") from error
    if mode in ("P", "1", "RGB", "RGBA"):
        raise DataError(
            f"{path} has mode {mode}, but a depth map has one channel of numbers: is it a colour "
            "picture of the depths?"
        )
    return read_stored_labels(path)
