"""Records from image files and their label files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from afdcd.data.datasets import Record
from afdcd.data.labels import DataError, image_size


def pair_records(pairs: Iterable[tuple[Path, Path]], what: str) -> list[Record]:
    """Detectron2's semantic segmentation records of (image, label map) files.

    Args:
        pairs: the files.
        what: the data set's title, for errors.

    Returns:
        ``file_name, sem_seg_file_name, height, width, image_id`` for each.

    Raises:
        DataError: there are no pairs, or a label map is missing or unreadable.
    """
    records = []
    missing = []
    for image, label in pairs:
        if not label.is_file():
            missing.append((image, label))
            continue
        height, width = image_size(label)
        records.append(
            {
                "file_name": str(image),
                "sem_seg_file_name": str(label),
                "height": height,
                "width": width,
                "image_id": image.stem,
            }
        )
    if missing:
        image, label = missing[0]
        raise DataError(
            f"{what}: {len(missing)} of {len(missing) + len(records)} images have no label map; "
            f"{image} should have {label}"
        )
    if not records:
        raise DataError(f"{what}: no images found")
    return records


def first_folder(candidates: list[Path], contents: list[str], what: str) -> Path:
    """The first candidate that holds all of ``contents``.

    Raises:
        DataError: none does; the message names the folders looked at and what they should hold.
    """
    for folder in candidates:
        if all((folder / name).is_dir() for name in contents):
            return folder
    looked = ", ".join(str(folder.absolute()) for folder in candidates)
    raise DataError(
        f"{what} not found. Looked in {looked}; expected a folder with "
        f"{' and '.join(f'{name}/' for name in contents)}. Set DETECTRON2_DATASETS to the folder "
        "that holds the data sets"
    )
