"""AfDCD's data sets in Detectron2's catalogs, and Detectron2's own by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from afdcd.data import (
    Dataset,
    DatasetSpec,
    LabelMap,
    dataset_names,
    get_spec,
    load_dataset,
)
from afdcd.data.spec import Record

# Names that a config has used of data sets described in YAML.
_described: set[str] = set()


def register(spec: DatasetSpec) -> None:
    """Make a data set known to Detectron2, with the metadata that its evaluators need.

    Detectron2's entry of the same name (Cityscapes) is replaced: ours needs no prepared label maps,
    and has one evaluator for all data sets. Label files that hold other values than classes are
    translated by this package's mapper only, so `training_loader` or INPUT.MAPPER scale_crop is the
    way to train on them.
    """
    if spec.name in DatasetCatalog.list():
        DatasetCatalog.remove(spec.name)
        MetadataCatalog.remove(spec.name)
    DatasetCatalog.register(spec.name, partial(_records, spec.name))
    MetadataCatalog.get(spec.name).set(
        stuff_classes=list(spec.classes),
        stuff_colors=[list(color) for color in spec.colors],
        ignore_label=spec.ignore_label,
        evaluator_type="sem_seg",
    )


def _records(name: str) -> list[Record]:
    return load_dataset(name).records


def is_own(name: str) -> bool:
    """Whether a data set is one of this package's, or described in YAML."""
    return name in dataset_names() or name in _described


def find_dataset(name: str) -> Dataset:
    """A semantic segmentation data set of ours or of Detectron2's, with its label map.

    Raises:
        KeyError: the name is unknown; near names are listed.
        DataError: the files are not there.
        ValueError: it is no semantic segmentation data set.
    """
    if name not in DatasetCatalog.list():
        register(get_spec(name))  # of a description
        _described.add(name)
    if is_own(name):
        return load_dataset(name)
    metadata = MetadataCatalog.get(name)
    records = DatasetCatalog.get(name)
    if "sem_seg_file_name" not in records[0] or not hasattr(metadata, "stuff_classes"):
        raise ValueError(
            f"{name} has no semantic label maps (sem_seg_file_name, stuff_classes): use "
            "INPUT.MAPPER detectron2 for other tasks"
        )
    classes = tuple(metadata.stuff_classes)
    ignored = getattr(metadata, "ignore_label", 255)
    spec = DatasetSpec(name, classes, _colors(metadata, len(classes)), _no_files)
    return Dataset(spec, records, LabelMap(len(classes), ignored=frozenset({ignored, 255})))


def _no_files(root: Any) -> Any:
    raise NotImplementedError("Detectron2 loads this data set")


def _colors(metadata: Any, count: int) -> tuple[tuple[int, int, int], ...]:
    colors = getattr(metadata, "stuff_colors", None) or [[0, 0, 0]] * count
    return tuple((c[0], c[1], c[2]) for c in colors)


for _name in dataset_names():
    register(get_spec(_name))
