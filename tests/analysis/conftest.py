"""Finished runs of a few iterations, for all tests of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from afdcd.cli.train_net import main as train

from helpers.tiny_runs import write_tiny_runs


@pytest.fixture(scope="package")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Holds the runs student, student_s6 (another seed), distilled, recorded; and teacher.pth."""
    folder = tmp_path_factory.mktemp("finished")
    configs = write_tiny_runs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder / "data"))
        patch.setenv("OMP_NUM_THREADS", "1")
        record = ["MODEL.DISTILLER.TEACHER.RECORD.VIEWS", "1"]
        record += ["MODEL.DISTILLER.TEACHER.RECORD.FOLDER", str(folder / "record")]
        record += ["MODEL.DISTILLER.LOSSES.afdcd.DIMS", "16"]
        for name, config, words in (
            ("student", "student", []),
            ("student_s6", "student", ["SEED", "6"]),
            ("distilled", "distilled", []),
            ("recorded", "distilled", record),
        ):
            flags = ["--config-file", str(configs / f"{config}.yaml"), "--runtime", "embedded"]
            assert train([*flags, *words, "OUTPUT_DIR", str(folder / name)]) == 0
        yield folder
