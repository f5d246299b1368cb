"""Importing the package leaves everyone's entries of Detectron2's catalogs as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from afdcd.d2.datasets import catalog_name, find_dataset, is_own, is_own_in_catalog
from afdcd.data import dataset_names, get_spec

SEMANTIC = [name for name in dataset_names() if get_spec(name).task == "semantic_segmentation"]
SCRIPT = """
from detectron2.data import DatasetCatalog, MetadataCatalog, datasets
DatasetCatalog.register("camvid_train", list)      # a user's, with a name of this package
MetadataCatalog.get("camvid_train").set(stuff_classes=["mine"])
DatasetCatalog.register("shapes_val", list)
def entries():
    return {n: (DatasetCatalog[n], MetadataCatalog.get(n).as_dict()) for n in DatasetCatalog.list()}
before = entries()
assert len(before) > 40
import afdcd.d2
after = entries()
changed = [name for name, entry in before.items() if after.get(name) != entry]
assert changed == [], changed
assert "camvid_val" in after and "synthetic_scenes_train" in after
from afdcd.d2.datasets import is_own
assert is_own("camvid_val") and is_own("ade20k_sem_seg_train") and not is_own("camvid_train")
from afdcd.d2.shapes import register_shapes
register_shapes()
assert DatasetCatalog["shapes_val"] is list
"""


def test_nothing_of_others_is_changed():
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", SEMANTIC)
def test_every_data_set_can_be_scored_by_detectron2s_evaluator(name: str):
    """By its name in the catalog, which has what the evaluator asks for."""
    assert is_own(name)
    metadata = MetadataCatalog.get(catalog_name(name))
    assert metadata.evaluator_type == "sem_seg" and metadata.ignore_label == 255
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) > 1


def test_a_name_of_both_means_ours_or_theirs_by_the_mapper(tmp_path, monkeypatch):
    name = "ade20k_sem_seg_val"
    assert is_own(name) and not is_own_in_catalog(name)
    records = [{"file_name": "a.jpg", "sem_seg_file_name": "a.png"}]
    theirs = DatasetCatalog.pop(name)
    DatasetCatalog.register(name, lambda: records)
    try:
        assert find_dataset(name, in_catalog=True).records == records
    finally:
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, theirs)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(ValueError, match="ADE"):  # ours looks for its own files
        find_dataset(name)
