"""One evaluation command, the same figures in both runtimes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("detectron2")

from afdcd.cli.train_net import main


def test_evaluations_agree(configs, tmp_path, caplog):
    found = {}
    for runtime in ("embedded", "detectron2"):
        words = ["--eval-only", "--runtime", runtime, "--num-gpus", "0"]
        words += ["--config-file", str(configs / "teacher.yaml")]
        words += ["MODEL.WEIGHTS", str(tmp_path / "teacher.pth")]
        words += ["TEST.SCALES", "[0.5,1.0]", "TEST.FLIP", "True", "TEST.CONFUSION", "True"]
        with caplog.at_level("INFO"):
            assert main([*words, "OUTPUT_DIR", str(tmp_path / runtime)]) == 0
        text = (tmp_path / runtime / "evaluation.json").read_text()
        found[runtime] = json.loads(text)["figures"]["camvid_val"]["sem_seg"]
        log = tmp_path / runtime / "log.txt"  # Detectron2's; not the embedded runtime's
        said = log.read_text() if log.is_file() else caplog.text
        assert "boundary IoU" in said and "Bicyclist" in said
    one, other = found["embedded"], found["detectron2"]
    assert one.keys() == other.keys()
    assert {"mIoU", "mBoundaryIoU", "mACC", "pACC", "IoU-Sky", "BoundaryIoU-Sky"} <= one.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-9), name
    tables = [
        (tmp_path / runtime / "confusion_camvid_val.csv").read_text()
        for runtime in ("embedded", "detectron2")
    ]
    assert tables[0] == tables[1]
