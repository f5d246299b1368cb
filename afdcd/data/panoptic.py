"""COCO panoptic files as semantic label maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afdcd.data.labels import IGNORE, DataError, LabelMap
from afdcd.data.listing import IMAGE_SUFFIXES, Listing
from afdcd.data.pairs import Pair
from afdcd.data.split_lists import read_text

VOID = 0


@dataclass(frozen=True)
class SegmentMap(LabelMap):
    """Label map of files that store segment ids as colours, each file with its own segments.

    Attributes:
        segments: by path of the file, the training label (or `IGNORE`) of each segment id.
    """

    encoding: str = "rgb"
    segments: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def apply(self, stored: np.ndarray, source: str | Path) -> np.ndarray:
        segments = self.segments.get(str(source))
        if segments is None:
            raise DataError(f"{source} is not in the panoptic file")
        one = LabelMap(
            self.num_classes,
            {segment: label for segment, label in segments.items() if label != IGNORE},
            frozenset({VOID} | {k for k, label in segments.items() if label == IGNORE}),
            "rgb",
        )
        return one.apply(stored, source)


def read_panoptic(
    listing: Listing,
    root: Path,
    classes: tuple[str, ...],
    mapping: Mapping[int, int],
    ignored: frozenset[int],
    what: str,
) -> tuple[list[Pair], SegmentMap]:
    """Pairs and label map of a COCO panoptic JSON file.

    Args:
        listing: with ``panoptic``, and the folders of its images and PNG files.
        root: that its paths are relative to.
        classes: names of the classes.
        mapping: label by category id; by equal names of category and class when empty.
        ignored: category ids that don't count.
        what: title for errors.

    Raises:
        DataError: the file can't be read, or has a category without a label.
    """
    if not listing.panoptic:
        raise DataError(f"{what}: encoding panoptic needs files: panoptic")
    path = root / listing.panoptic
    content = _read_json(path)
    try:
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        stems = {i["id"]: str(i["file_name"]) for i in content["images"]}
        labels = dict(mapping) or {k: classes.index(n) for k, n in names.items() if n in classes}
        pairs, segments = [], {}
        for annotation in content["annotations"]:
            file = str(annotation["file_name"])
            path_of_map = str(root / listing.labels / file)
            if path_of_map in segments:
                raise DataError(f"{path} has two annotations of {file}")
            segments[path_of_map] = {
                int(s["id"]): _label(int(s["category_id"]), labels, ignored, names, path)
                for s in annotation["segments_info"]
            }
            image = stems.get(annotation["image_id"], "")
            pairs.append(_pair(root, listing, file, image))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no COCO panoptic file: {type(error).__name__} {error}"
        ) from error
    if not pairs:
        raise DataError(f"{path} lists no annotations")
    return pairs, SegmentMap(len(classes), segments=segments)


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"no panoptic file at {path.absolute()}")
    try:
        return json.loads(read_text(path))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON file: {error}") from error


def _label(
    category: int,
    labels: Mapping[int, int],
    ignored: frozenset[int],
    names: Mapping[int, str],
    path: Path,
) -> int:
    if category in ignored:
        return IGNORE
    if category not in labels:
        raise DataError(
            f"{path} has the category {category} ({names.get(category, 'without a name')}), which "
            "is no class: add it to classes, labels.mapping or labels.ignore"
        )
    return labels[category]


def _pair(root: Path, listing: Listing, label: str, image: str) -> Pair:
    folder = root / listing.images
    candidates = [folder / image] if image else []
    candidates += [folder / f"{Path(label).stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    found = next((path for path in candidates if path.is_file()), candidates[0])
    return Pair(found, root / listing.labels / label, Path(label).stem)
