"""Data sets that are described by a YAML file instead of code (docs/datasets.md)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from afdcd.data import depth
from afdcd.data.labels import IGNORE, LabelMap, image_size, rgb_code
from afdcd.data.listing import Listing, read_listing, select_split
from afdcd.data.pairs import pair_records
from afdcd.data.palette import bit_palette
from afdcd.data.panoptic import SegmentMap, read_panoptic
from afdcd.data.spec import Color, DatasetSpec, Record
from afdcd.data.yaml_fields import DescriptionError, Fields, as_color, as_text, read_yaml
from afdcd.utils.paths import expanded

ENCODINGS = ("index", "rgb", "panoptic")
FOLDER = "descriptions"  # of the data sets' root
NOTHING = "none"  # as labels.ignore: every stored value counts
_REFERENCE = re.compile(r"(.+\.ya?ml):([^:/\\]+)")
_KEYS = ("root", "classes", "labels", "images", "files", "splits")
_LARGEST = {"index": 2**31 - 1, "panoptic": 2**31 - 1, "rgb": 2**24 - 1}


@dataclass(frozen=True)
class Description:
    """A description file, read and checked; the files it names are not looked at.

    Attributes:
        path: of the YAML file.
        root: folder that the listings' paths are relative to.
        classes: K names in label order.
        colors: K colours (red, green, blue).
        encoding: ``index``, ``rgb`` or ``panoptic``.
        mapping: label by stored value (of panoptic files: by category id); empty where it is the
            default.
        ignored: stored values that don't count.
        window: (lowest, highest) image value, or None.
        listing: where the files are.
        splits: by name, what is chosen of the listing, or a listing of its own.
        form: of depth maps, which have no classes; else None.
    """

    path: Path
    root: Path
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    encoding: str
    mapping: Mapping[int, int]
    ignored: frozenset[int]
    window: tuple[float, float] | None
    listing: Listing | None
    splits: Mapping[str, Fields]
    form: depth.DepthForm | None = None

    def label_map(self) -> LabelMap:
        """Of ``index`` and ``rgb`` files."""
        return LabelMap(len(self.classes), self.mapping, self.ignored, self.encoding)

    def spec(self, split: str, name: str) -> DatasetSpec:
        """A split as a data set called ``name``."""
        official = None if self.encoding == "panoptic" else self.label_map()
        load = partial(self.load, split=split)
        spec = DatasetSpec(
            name,
            self.classes,
            self.colors,
            load,
            official=official,
            window=self.window,
            images=partial(self.images, split=split),
        )
        return spec if self.form is None else depth.as_depth(spec, self.form, self.encoding)

    def images(self, root: Path | None = None, *, split: str) -> list[Path]:
        """The image files of a split; label maps, and a panoptic file, are not looked for.

        Raises:
            DataError: see `load`.
        """
        del root
        what = f"{self.path} ({split})"
        listing, chosen = select_split(self.listing, self.splits, split, self.root, what)
        pairs = read_listing(listing, self.root, what, labeled=False)
        return [image for image, _ in chosen(pairs)]

    def load(self, root: Path | None = None, *, split: str) -> tuple[list[Record], LabelMap]:
        """Records and label map of a split. ``root`` is not used.

        Raises:
            DataError: files are missing, or a listing can't be read.
        """
        del root
        what = f"{self.path} ({split})"
        listing, chosen = select_split(self.listing, self.splits, split, self.root, what)
        label_map = self.label_map() if self.encoding != "panoptic" else None
        if label_map is None:
            pairs, label_map = read_panoptic(
                listing, self.root, self.classes, self.mapping, self.ignored, what
            )
        else:
            pairs = read_listing(listing, self.root, what)
        records = pair_records(chosen(pairs), what, depth.depth_size if self.form else image_size)
        if self.window is not None:
            records = [{**record, "window": list(self.window)} for record in records]
        return records, label_map


def described_spec(name: str, root: Path) -> DatasetSpec | None:
    """The data set that a name refers to, if it is a description's.

    Args:
        name: ``<path>.yaml:<split>``, or ``<stem>_<split>`` of a file in ``<root>/descriptions``.
        root: folder of the data sets.

    Raises:
        DescriptionError: the file is missing or can't be used, or has no such split.
    """
    if match := _REFERENCE.fullmatch(name):
        try:
            path, split = Path(expanded(match[1])), match[2]
        except ValueError as error:
            raise DescriptionError(str(error)) from error
        description = read_description(path)
        if split not in description.splits:
            raise DescriptionError(
                f"{path} has no split {split!r}; it has {', '.join(description.splits)}"
            )
        return description.spec(split, name)
    if re.search(r"\.ya?ml$", name):
        raise DescriptionError(f"{name!r} names no split: write {name}:train, for example")
    folder = root / FOLDER
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        split = name.removeprefix(f"{path.stem}_")
        if split == name:
            continue
        description = read_description(path)
        if split in description.splits:
            return description.spec(split, name)
    return None


def described_names(root: Path) -> list[str]:
    """Names of the data sets in ``<root>/descriptions`` whose files can be read."""
    names = []
    folder = root / FOLDER
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        try:
            names += [f"{path.stem}_{split}" for split in read_description(path).splits]
        except DescriptionError:
            continue
    return names


def read_description(path: Path) -> Description:
    """Read and check a description.

    Raises:
        DescriptionError: what is wrong, with the key.
    """
    top = Fields(read_yaml(path), str(path), _KEYS)
    folder = Path(top.path("root", "."))
    form = depth.read_form(top)
    keys = ("encoding", "mapping", "ignore") if form is None else depth.KEYS
    labels = Fields(top.raw("labels"), f"{path}: labels", keys)
    encoding = labels.text("encoding", "index")
    if encoding not in (known := (*ENCODINGS, *depth.ENCODINGS)):
        raise DescriptionError(
            f"{path}: labels: encoding must be one of {', '.join(known)}; got {encoding!r}"
        )
    classes, colors = _classes(top, str(path)) if form is None else (depth.CHANNELS, depth.COLORS)
    mapping, ignored = _mapping(labels, encoding, classes, colors)
    images = Fields(top.raw("images"), f"{path}: images", ("window",))
    window = None
    if "window" in images:
        low, high = images.numbers("window", 2)
        if low >= high:
            raise DescriptionError(
                f"{path}: images: window is [lowest, highest]; got [{low:g}, {high:g}]"
            )
        window = (low, high)
    listing = Listing.parse(top.raw("files"), f"{path}: files") if "files" in top else None
    return Description(
        path=path,
        root=path.parent / folder,
        classes=classes,
        colors=colors,
        encoding=encoding,
        mapping=mapping,
        ignored=ignored,
        window=window,
        listing=listing,
        splits=_splits(top, str(path), listing),
        form=form,
    )


def _classes(top: Fields, where: str) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    content = top.raw("classes")
    if not isinstance(content, list) or not content:
        raise DescriptionError(
            f"{where}: classes must be a list of names, or of {{name: ..., color: ...}}"
        )
    if len(content) > IGNORE:
        raise DescriptionError(f"{where}: at most {IGNORE} classes; got {len(content)}")
    names: list[str] = []
    colors: list[Color] = []
    defaults = bit_palette(len(content), first=1)
    for number, item in enumerate(content):
        key = f"{where}: classes[{number}]"
        if isinstance(item, dict):
            fields = Fields(item, key, ("name", "color"))
            names.append(fields.text("name"))
            given = "color" in fields
            colors.append(
                as_color(fields.raw("color"), f"{key}: color") if given else defaults[number]
            )
        else:
            names.append(as_text(item, key))
            colors.append(defaults[number])
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DescriptionError(f"{where}: classes: {', '.join(twice)} is there twice")
    return tuple(names), tuple(colors)


def _mapping(
    labels: Fields, encoding: str, classes: tuple[str, ...], colors: tuple[Color, ...]
) -> tuple[dict[int, int], frozenset[int]]:
    """Labels by stored value, and the stored values that don't count."""
    content = labels.raw("mapping")
    ignored = _ignored(labels, encoding)
    if content is None:
        if encoding == "rgb":
            content = dict(zip(colors, classes, strict=True))
            if len(content) < len(colors):
                raise DescriptionError(
                    f"{labels.where}: two classes have one colour, so that colours can't tell them "
                    "apart"
                )
        elif encoding == "index":
            content = {k: name for k, name in enumerate(classes) if k not in ignored}
    if content is None:  # panoptic: by the categories' names
        return {}, ignored
    if not isinstance(content, dict) or not content:
        raise DescriptionError(
            f"{labels.where}: mapping takes {{stored value: class}}; got {content!r}"
        )
    mapping: dict[int, int] = {}
    by_default = labels.raw("ignore") is None
    explicit = set() if by_default else set(ignored)
    for stored, name in content.items():
        value = _stored_value(stored, encoding, f"{labels.where}: mapping")
        if value in mapping or value in explicit:
            other = "ignore" if value in explicit else "another line of mapping"
            raise DescriptionError(
                f"{labels.where}: the stored value {stored!r} has several meanings: mapping says "
                f"{name!r}, but it is in {other}, too: take it out of one of them"
            )
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)  # a class called 1
        if name == "ignore":
            explicit.add(value)
            continue
        if name not in classes:
            near = difflib.get_close_matches(str(name), classes, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DescriptionError(f"{labels.where}: mapping: no class {name!r}{hint}")
        mapping[value] = classes.index(name)
    if never := [name for k, name in enumerate(classes) if k not in mapping.values()]:
        raise DescriptionError(
            f"{labels.where}: no stored value means {', '.join(never[:5])}: add it to mapping, or "
            "leave the class out"
        )
    if by_default:  # what is mapped counts
        explicit |= ignored - mapping.keys()
    return mapping, frozenset(explicit)


def _ignored(labels: Fields, encoding: str) -> frozenset[int]:
    content = labels.raw("ignore")
    if content is None:
        return frozenset({IGNORE}) if encoding == "index" else frozenset()
    if content == NOTHING:
        content = []
    if encoding == "rgb" and isinstance(content, list) and content and isinstance(content[0], int):
        content = [content]  # one colour
    if not isinstance(content, list):
        content = [content]
    where = f"{labels.where}: ignore"
    return frozenset(_stored_value(value, encoding, where) for value in content)


def _stored_value(value: Any, encoding: str, where: str) -> int:
    if encoding == "rgb":
        return rgb_code(*as_color(value, where))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST[encoding]:
        return value
    hint = ""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value):
        hint = f": write {int(value)}, without zeros before it and quotes"
    raise DescriptionError(f"{where} takes whole numbers of 0 and above; got {value!r}{hint}")


def _splits(top: Fields, where: str, listing: Listing | None) -> dict[str, Fields]:
    content = top.raw("splits")
    if not isinstance(content, dict) or not content:
        raise DescriptionError(f"{where}: splits must name at least one split, e.g. train: {{}}")
    splits = {}
    for name, value in content.items():
        split = as_text(name, f"{where}: splits")
        key = f"{where}: splits: {split}"
        fields = Fields(value, key, ("list", "share", "files"))
        if "files" in fields:
            Listing.parse(fields.raw("files"), f"{key}: files")
        elif listing is None:
            raise DescriptionError(f"{key}: needs files, here or for all splits")
        if "list" in fields and "share" in fields:
            raise DescriptionError(f"{key}: list and share exclude each other")
        if "share" in fields:
            (share,) = Fields({"share": [fields.raw("share")]}, key, ("share",)).numbers("share", 1)
            if "files" in fields:
                raise DescriptionError(f"{key}: share is of the common files: leave out its own")
            if not 0 < share <= 1:
                raise DescriptionError(
                    f"{key}: share is above 0 and at most 1 of the common files; got {share:g}"
                )
        splits[split] = fields
    if sum(float(f.raw("share")) for f in splits.values() if "share" in f) > 1 + 1e-9:
        raise DescriptionError(f"{where}: splits: the shares sum to more than 1")
    return splits


__all__ = [
    "Description",
    "DescriptionError",
    "SegmentMap",
    "described_names",
    "described_spec",
    "read_description",
]
