"""AfDCD's data sets beside those in Detectron2's catalogs.

Nothing that Detectron2 or a user has registered is changed. Where Detectron2 has a name of ours
(Cityscapes, ADE20K, VOC), ours is in the catalogs under another one, and a config's name means ours
with INPUT.MAPPER scale_crop, Detectron2's with INPUT.MAPPER detectron2. Where a user has the name,
it means the user's data set.
"""

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
    unlabeled,
)
from afdcd.data.spec import Record
from afdcd.data.unlabeled import UnlabeledImages, without_labels

# The names in Detectron2's catalogs of the data sets that this package has registered.
_catalog_names: dict[str, str] = {}


def register(spec: DatasetSpec) -> None:
    """Make a data set known to Detectron2, with the metadata that its evaluators need.

    As ``afdcd_<name>`` where Detectron2 has a data set of this name, and not at all where a user
    has. Label files that hold other values than classes are translated by this package's mapper
    only, so `training_loader` or INPUT.MAPPER scale_crop is the way to train on them.
    """
    name = spec.name
    if name in _catalog_names:
        return
    if name in DatasetCatalog.list():
        if not _is_detectron2s(name):
            return
        name = f"afdcd_{name}"
    _catalog_names[spec.name] = name
    DatasetCatalog.register(name, partial(_records, spec.name))
    MetadataCatalog.get(name).set(
        stuff_classes=list(spec.classes),
        stuff_colors=[list(color) for color in spec.colors],
        ignore_label=spec.ignore_label,
        evaluator_type="sem_seg",
    )


def _records(name: str) -> list[Record]:
    return load_dataset(name).records


def _is_detectron2s(name: str) -> bool:
    """Whether Detectron2 itself has registered a name of its catalog."""
    return str(getattr(DatasetCatalog[name], "__module__", "")).startswith("detectron2.")


def is_own(name: str) -> bool:
    """Whether this package reads a data set, being one of its own or described in YAML."""
    return name in _catalog_names


def is_own_in_catalog(name: str) -> bool:
    """Whether what Detectron2's catalog has by this name is this package's."""
    return _catalog_names.get(name) == name


def catalog_name(name: str) -> str:
    """What a data set is called in Detectron2's catalogs."""
    return _catalog_names.get(name, name)


def find_dataset(name: str, *, in_catalog: bool = False) -> Dataset:
    """A semantic segmentation data set of ours or of Detectron2's, with its label map.

    Args:
        name: as in a config.
        in_catalog: whether what Detectron2's catalog has by this name is meant, rather than ours.

    Raises:
        KeyError: the name is unknown; near names are listed.
        DataError: the files are not there.
        ValueError: it is no semantic segmentation data set.
    """
    if name not in DatasetCatalog.list():
        register(get_spec(name))  # of a description
    if is_own_in_catalog(name) or (is_own(name) and not in_catalog):
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


def find_unlabeled(name: str) -> UnlabeledImages:
    """Images without labels: of a user's or Detectron2's data set, or as of the other runtime.

    Raises:
        DataError: there are none.
    """
    if name in DatasetCatalog.list() and not is_own_in_catalog(name) and not is_own(name):
        return without_labels(name, DatasetCatalog.get(name))
    return unlabeled.find_unlabeled(name)


def _no_files(root: Any) -> Any:
    raise NotImplementedError("Detectron2 loads this data set")


def _colors(metadata: Any, count: int) -> tuple[tuple[int, int, int], ...]:
    colors = getattr(metadata, "stuff_colors", None) or [[0, 0, 0]] * count
    return tuple((c[0], c[1], c[2]) for c in colors)


for _name in dataset_names():
    register(get_spec(_name))
