"""Records from image files and their label files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from afdcd.data.labels import DataError, image_size
from afdcd.data.spec import Record


@dataclass(frozen=True)
class Pair:
    """An image and its label map.

    Attributes:
        key: what lists name it by: its path below the folder of images without the suffix; of a CSV
            file the image's path without extension.
        group: of a CSV file's column ``split``, else empty.
        row: line of a CSV file; 0 without one.
    """

    image: Path
    label: Path
    key: str
    group: str = ""
    row: int = 0


def pair_records(
    pairs: Iterable[tuple[Path, Path]],
    what: str,
    size_of: Callable[[Path], tuple[int, int]] = image_size,
) -> list[Record]:
    """Detectron2's semantic segmentation records of (image, label map) files.

    Args:
        pairs: the files.
        what: the data set's title, for errors.
        size_of: gives a label file's height and width.

    Returns:
        ``file_name, sem_seg_file_name, height, width, image_id`` for each.

    Raises:
        DataError: there are no pairs, a file is missing, or a label map unreadable.
    """
    records = []
    missing = []
    absent = []
    for image, label in pairs:
        if not label.is_file():
            missing.append((image, label))
            continue
        if not image.is_file():
            absent.append(image)
            continue
        height, width = size_of(label)
        records.append(
            {
                "file_name": str(image),
                "sem_seg_file_name": str(label),
                "height": height,
                "width": width,
                "image_id": image.stem,
            }
        )
    total = len(missing) + len(absent) + len(records)
    if absent:
        raise DataError(
            f"{what}: {len(absent)} of {total} images are missing, the first is {absent[0]}"
        )
    if missing:
        image, label = missing[0]
        raise DataError(
            f"{what}: {len(missing)} of {total} images have no label map; "
            f"{image} should have {label}"
        )
    if not records:
        raise DataError(f"{what}: no images found")
    return records


def image_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, in order; hidden ones are left out.

    (Archives unpacked on some systems hold a hidden ``._name`` beside each file.)
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def first_folder(
    candidates: list[Path], contents: list[str], what: str, *, either: Sequence[str] = ()
) -> Path:
    """The first candidate that holds all of ``contents`` and one of ``either``, if any.

    Raises:
        DataError: none does; the message names the folders looked at, what they should hold, and
            what is missing where something was found.
    """
    for folder in candidates:
        if all((folder / name).is_dir() for name in contents) and (
            not either or any((folder / name).is_dir() for name in either)
        ):
            return folder
    looked = ", ".join(str(folder.absolute()) for folder in candidates)
    parts = [f"{name}/" for name in contents]
    if either:
        parts.append(" or ".join(f"{name}/" for name in either))
    raise DataError(
        f"{what} not found. Looked in {looked}; expected a folder with {' and '.join(parts)}."
        f"{_found(candidates, [*contents, *either])} Set DETECTRON2_DATASETS to the folder that "
        "holds the data sets"
    )


def _found(candidates: list[Path], wanted: list[str]) -> str:
    """What there is of ``wanted`` in the candidate that holds most of it, as a sentence."""
    best, most = None, 0
    for folder in candidates:
        held = sum((folder / name).is_dir() for name in wanted)
        if held > most:
            best, most = folder, held
    if best is None:
        return ""
    missing = ", ".join(f"{name}/" for name in wanted if not (best / name).is_dir())
    return f" {best.absolute()} has only a part of that: it lacks {missing}."
