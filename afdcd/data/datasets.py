"""Data sets by name: classes, colours, label map, and where their files are."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from afdcd.data.description import described_names, described_spec
from afdcd.data.labels import LabelMap
from afdcd.data.spec import DatasetSpec, Record
from afdcd.utils.paths import expanded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A data set whose files were found."""

    spec: DatasetSpec
    records: list[Record]
    label_map: LabelMap

    def count_problem(self) -> str:
        """What is to be said of the number of images; empty where it is the published one."""
        expected, found = self.spec.expected, len(self.records)
        if expected is None or found == expected:
            return ""
        return f"{self.spec.name}: {found} images found, but {expected} are published"

    def size_problem(self) -> str:
        """What is to be said of the images' sizes; empty where they are the published ones."""
        size, longest = self.spec.size, self.spec.longest_side
        other = [
            r
            for r in self.records
            if (size is not None and (r["height"], r["width"]) != size)
            or (longest is not None and max(r["height"], r["width"]) > longest)
        ]
        if not other:
            return ""
        expected = f"{size[0]}x{size[1]}" if size else f"at most {longest} pixels a side"
        first = other[0]
        return (
            f"{self.spec.name}: {len(other)} of {len(self.records)} images are not "
            f"{expected}, as published: {first['file_name']} is {first['height']}x{first['width']}"
        )


_SPECS: dict[str, DatasetSpec] = {}
# Warnings are given once, not at each of a run's look-ups.
_said: set[str] = set()


def register_dataset(spec: DatasetSpec) -> None:
    """Make a data set known by its name.

    Raises:
        ValueError: the name is taken, or classes and colours differ in number.
    """
    if spec.name in _SPECS:
        raise ValueError(f"a data set called {spec.name!r} is registered already")
    if len(spec.classes) != len(spec.colors):
        raise ValueError(
            f"{spec.name} has {len(spec.classes)} classes but {len(spec.colors)} colours"
        )
    _SPECS[spec.name] = spec


def dataset_names() -> list[str]:
    """Names of the registered data sets."""
    return sorted(_SPECS)


def get_spec(name: str) -> DatasetSpec:
    """The data set registered as ``name``, or described by a YAML file.

    Args:
        name: a registered name; ``<path>.yaml:<split>``; or ``<stem>_<split>`` of a description in
            the folder ``descriptions`` of the data sets' root. See `afdcd.data.description`.

    Raises:
        KeyError: unknown; the message lists near names, or all of them where it isn't a path.
        DataError: the description can't be used.
    """
    if name not in _SPECS:
        described = described_spec(name, datasets_root())
        if described is not None:
            return described
        known = [*dataset_names(), *described_names(datasets_root())]
        near = difflib.get_close_matches(name, known, n=3)
        if not near and "/" in name:  # a path
            raise KeyError(f"no data set is called {name!r}")
        raise KeyError(f"no data set is called {name!r}; did you mean {', '.join(near or known)}?")
    return _SPECS[name]


def datasets_root() -> Path:
    """The folder that holds the data sets: ``$DETECTRON2_DATASETS``, by default ``datasets``."""
    return Path(expanded(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def load_dataset(name: str, root: Path | None = None) -> Dataset:
    """Find the files of a data set.

    Args:
        name: see `dataset_names`.
        root: folder that holds the data sets; `datasets_root` when None.

    Raises:
        KeyError: the name is unknown.
        DataError: the files are not there, or incomplete.
    """
    spec = get_spec(name)
    records, label_map = spec.load(root or datasets_root())
    dataset = Dataset(spec, records, label_map)
    for problem in (dataset.count_problem(), dataset.size_problem()):
        if problem and problem not in _said:
            _said.add(problem)
            logger.warning("%s", problem)
    return dataset
