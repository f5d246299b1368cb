"""Images without labels: what ``DATASETS.UNLABELED`` names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from afdcd.data.datasets import Dataset, datasets_root, get_spec
from afdcd.data.images import shown_size
from afdcd.data.labels import DataError
from afdcd.data.listing import IMAGE_SUFFIXES
from afdcd.data.spec import Record
from afdcd.utils.files import files_below
from afdcd.utils.paths import expanded
from afdcd.utils.sample_keys import UNLABELED

# Of a labelled image's record.
_KEPT = ("file_name", "height", "width", "image_id", "window")


class UnlabeledImages(NamedTuple):
    """Images whose label maps, if there are any, are never opened.

    Attributes:
        name: as in ``DATASETS.UNLABELED``.
        records: ``file_name, height, width, image_id, unlabeled``, and perhaps ``window``.
    """

    name: str
    records: list[Record]


def find_unlabeled(name: str) -> UnlabeledImages:
    """The images of a data set, or of a folder and the folders below it.

    Args:
        name: of a data set or a description's split, as in ``DATASETS.TRAIN``; or a folder.

    Raises:
        DataError: there is neither, there are no images, or one of them can't be opened.
    """
    try:
        spec = get_spec(name)
    except KeyError as error:
        return _folder(name, str(error.args[0]))
    if spec.images is None:
        return without_labels(name, spec.load(datasets_root())[0])
    paths = spec.images(datasets_root())
    return UnlabeledImages(name, _records(name, paths, spec.window))


def without_labels(name: str, records: Iterable[Record]) -> UnlabeledImages:
    """Records of labelled images as images without labels."""
    plain = [
        {key: record[key] for key in _KEPT if key in record} | {UNLABELED: True}
        for record in records
    ]
    return UnlabeledImages(name, plain)


def joined(
    like: Dataset, labeled: Sequence[Dataset], unlabeled: Sequence[UnlabeledImages]
) -> Dataset:
    """All training sets as one, the images without labels after the others.

    Args:
        like: whose classes and task it has.
        labeled, unlabeled: the parts.
    """
    records = [record for dataset in labeled for record in dataset.records]
    records += [record for images in unlabeled for record in images.records]
    return Dataset(like.spec, records, like.label_map)


def _folder(name: str, otherwise: str) -> UnlabeledImages:
    try:
        folder = Path(expanded(name))
    except ValueError as error:
        raise DataError(str(error)) from error
    if not folder.is_dir():
        raise DataError(f"{name!r} is no folder ({folder.absolute()}), and {otherwise}")
    try:
        found = files_below(folder)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    images = [
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return UnlabeledImages(name, _records(name, images, None))


def _records(name: str, paths: Sequence[Path], window: tuple[float, float] | None) -> list[Record]:
    if not paths:
        raise DataError(f"{name}: no images found (files that end in {', '.join(IMAGE_SUFFIXES)})")
    records = []
    for path in paths:
        height, width = shown_size(path)
        records.append(
            {
                "file_name": str(path),
                "height": height,
                "width": width,
                "image_id": path.stem,
                UNLABELED: True,
                **({} if window is None else {"window": list(window)}),
            }
        )
    return records
