"""Which image goes with which label map: folders, or a CSV file; and their splits."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afdcd.data.labels import DataError
from afdcd.data.pairs import Pair
from afdcd.data.spec import Record
from afdcd.data.split_lists import listed_pairs, read_text, slashes
from afdcd.data.yaml_fields import DescriptionError, Fields
from afdcd.utils.files import files_below

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp")
# Keys of a listing.
PATHS = ("images", "labels", "csv", "panoptic")
SUFFIXES = ("image_suffix", "label_suffix")


Choice = Callable[[list[Pair]], list[tuple[Path, Path]]]


@dataclass(frozen=True)
class Listing:
    """Where the files are, by folders and suffixes, a CSV file, or a COCO panoptic file.

    Attributes:
        images, labels: folders; label maps lie at the same place below theirs.
        image_suffix: end of the images' names; any image format's when empty.
        label_suffix: what replaces it in the label maps' names.
        csv: file with the columns image and label, and optionally split.
        panoptic: COCO panoptic JSON file, with ``images`` and ``labels`` as its folders.
    """

    images: str = ""
    labels: str = ""
    image_suffix: str = ""
    label_suffix: str = ".png"
    csv: str = ""
    panoptic: str = ""

    @staticmethod
    def parse(content: Any, where: str) -> Listing:
        """Read from a description.

        Raises:
            DescriptionError: keys are missing, unknown, or exclude each other.
        """
        fields = Fields(content, where, (*PATHS, *SUFFIXES))
        words = {key: fields.text(key) for key in SUFFIXES if key in fields}
        listing = Listing(**words, **{key: fields.path(key) for key in PATHS if key in fields})
        if listing.csv:
            if len(fields.content) > 1:
                raise DescriptionError(f"{where}: csv stands alone")
        elif not listing.images or not listing.labels:
            raise DescriptionError(f"{where}: needs images and labels (folders), or csv")
        return listing


def read_listing(listing: Listing, root: Path, what: str, *, labeled: bool = True) -> list[Pair]:
    """The pairs of folders or of a CSV file, in order.

    Args:
        listing: where they are.
        root: that its paths are relative to.
        what: title for errors.
        labeled: whether label maps are wanted; without, their folder or column may be empty or
            missing.

    Raises:
        DataError: a folder or file is missing, or there are no images.
    """
    if listing.csv:
        return _from_csv(root, listing, what, labeled=labeled)
    return _from_folders(root, listing, what, labeled=labeled)


def select_split(
    common: Listing | None, splits: Mapping[str, Fields], split: str, root: Path, what: str
) -> tuple[Listing, Choice]:
    """The listing of a split, and the choice of its pairs.

    Without ``list`` and ``share``, a split is all of its files, or, of a CSV file with a column
    ``split``, the rows that carry its name. Shares are cut from the common files in an order that
    depends on their names alone, without those that other splits list.
    """
    fields = splits[split]
    own = "files" in fields
    listing = Listing.parse(fields.raw("files"), fields.where) if own else common
    assert listing is not None

    def listed(pairs: list[Pair], by: Fields) -> list[Pair]:
        folders = listing.images, listing.labels
        return listed_pairs(root / by.path("list"), pairs, root, folders, what)

    if "list" in fields:
        return listing, lambda pairs: _files(listed(pairs, fields))
    if "share" in fields:
        lists = [f for f in splits.values() if "list" in f and "files" not in f]
        shares = {n: float(f.raw("share")) for n, f in splits.items() if "share" in f}

        def shared(pairs: list[Pair]) -> list[tuple[Path, Path]]:
            taken = {pair.image for by in lists for pair in listed(pairs, by)}
            return _files(_share(pairs, taken, shares, split, what))

        return listing, shared
    return listing, lambda pairs: _files(_grouped(pairs, root / listing.csv, split, what))


def _from_folders(root: Path, listing: Listing, what: str, *, labeled: bool) -> list[Pair]:
    images, labels = root / listing.images, root / listing.labels
    for folder in (images, labels) if labeled else (images,):
        if not folder.is_dir():
            raise DataError(f"{what}: no folder {folder.absolute()}")
    pairs = []
    try:
        found = files_below(images)
    except OSError as error:
        raise DataError(f"{what}: {error.strerror}") from error
    for image in found:
        name = image.relative_to(images).as_posix()
        if image.name.startswith("."):
            continue
        if not image.exists():
            raise DataError(
                f"{what}: {image.absolute()} is a link to {image.readlink()}, which isn't there: "
                "mend the link or delete it"
            )
        if not image.is_file():
            continue
        if listing.image_suffix:
            if not name.endswith(listing.image_suffix):
                continue
            key = name.removesuffix(listing.image_suffix)
        elif image.suffix.lower() in IMAGE_SUFFIXES:
            key = name.removesuffix(image.suffix)
        else:
            continue
        label = labels / f"{key}{listing.label_suffix}"
        if label != image:  # both may lie in one folder
            pairs.append(Pair(image, label, key))
    if images == labels and not listing.image_suffix:
        label_maps = {pair.label for pair in pairs}
        pairs = [pair for pair in pairs if pair.image not in label_maps]
    if not pairs:
        ends = listing.image_suffix or "an image's suffix"
        raise DataError(f"{what}: no files that end in {ends} in {images.absolute()}")
    if labeled and (twice := _twice([pair.label for pair in pairs])):
        raise DataError(f"{what}: two images have the label map {twice}: set image_suffix")
    return pairs


def _from_csv(root: Path, listing: Listing, what: str, *, labeled: bool) -> list[Pair]:
    path = root / listing.csv
    if not path.is_file():
        raise DataError(f"{what}: no file {path.absolute()}")
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from error
    pairs = []
    for number, row in rows:
        image, label = (slashes(str(row.get(name) or "")) for name in ("image", "label"))
        if not image or (labeled and not label) or "\0" in image + label:
            needed = "columns image and label" if labeled else "column image"
            raise DataError(
                f"{path}, line {number}: needs the {needed}, filled; it has "
                f"{', '.join(str(column) for column in row)}"
            )
        key = Path(image).with_suffix("").as_posix()
        group = str(row.get("split") or "").strip()
        pairs.append(Pair(root / image, root / label, key, group, number))
    if not pairs:
        raise DataError(f"{path} lists no images")
    if twice := _twice([pair.image for pair in pairs]):
        raise DataError(f"{path} lists {twice} twice")
    return pairs


def _twice(paths: list[Path]) -> Path | None:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
    return None


def _share(
    pairs: list[Pair], taken: set[Path], shares: Mapping[str, float], split: str, what: str
) -> list[Pair]:
    free = [pair for pair in pairs if pair.image not in taken]
    free.sort(key=lambda pair: (zlib.crc32(pair.key.encode()), pair.key))
    start = 0.0
    for name, share in shares.items():
        # Rounded borders: shares that sum to 1 leave no file out.
        first, last = (round(len(free) * edge) for edge in (start, min(start + share, 1.0)))
        if name == split:
            chosen = {id(pair) for pair in free[first:last]}
            if not chosen:
                raise DataError(f"{what}: a share of {share:g} of {len(free)} images is none")
            return [pair for pair in pairs if id(pair) in chosen]
        start += share
    raise AssertionError(f"{split} has no share")


def _grouped(pairs: list[Pair], path: Path, split: str, what: str) -> list[Pair]:
    """The rows of a split, of a CSV file with a column ``split``; else all pairs."""
    groups = {pair.group for pair in pairs}
    if groups == {""}:
        return pairs
    if none := next((pair for pair in pairs if not pair.group), None):
        raise DataError(
            f"{path}, line {none.row}: {none.key} has no split, but other rows have one "
            f"({', '.join(sorted(groups - {''}))}): fill the column, or delete the row"
        )
    chosen = [pair for pair in pairs if pair.group == split]
    if not chosen:
        raise DataError(f"{what}: no row has the split {split!r}; there are {sorted(groups)}")
    return chosen


def _files(pairs: list[Pair]) -> list[tuple[Path, Path]]:
    return [(pair.image, pair.label) for pair in pairs]


def spread(records: Sequence[Record], limit: int | None) -> list[Record]:
    """At most ``limit`` records, evenly spread; all for None."""
    if limit is None or len(records) <= limit:
        return list(records)
    return [records[int(k * len(records) / limit)] for k in range(limit)]
