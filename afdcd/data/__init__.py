"""Data sets as Detectron2 records, and the mapper that makes samples of them."""

from afdcd.data import (  # noqa: F401  (they register their data sets)
    ade20k,
    camvid,
    cityscapes,
    coco_stuff,
    voc,
)
from afdcd.data.datasets import (
    Dataset,
    dataset_names,
    get_spec,
    load_dataset,
    register_dataset,
)
from afdcd.data.labels import IGNORE, DataError, LabelMap, read_labels
from afdcd.data.mapper import DenseMapper, TrainingAugmentation
from afdcd.data.spec import Color, DatasetSpec, Record
from afdcd.data.synthetic import dataset as _synthetic  # noqa: F401
from afdcd.data.synthetic import depth as _synthetic_depth  # noqa: F401

__all__ = [
    "IGNORE",
    "Color",
    "DataError",
    "Dataset",
    "DatasetSpec",
    "DenseMapper",
    "LabelMap",
    "Record",
    "TrainingAugmentation",
    "dataset_names",
    "get_spec",
    "load_dataset",
    "read_labels",
    "register_dataset",
]
