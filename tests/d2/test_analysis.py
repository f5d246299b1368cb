"""Analysis and report of runs of Detectron2's runtime, and --quiet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("detectron2")

from afdcd.cli.analyze import main as analyze
from afdcd.cli.report import main as report
from afdcd.cli.train_net import main as train


def test_of_runs_trained_quietly(configs, tmp_path, capsys):
    folders = {name: tmp_path / name for name in ("student", "distilled")}
    for name, folder in folders.items():
        words = ["--config-file", str(configs / f"{name}.yaml"), "--runtime", "detectron2"]
        assert train([*words, "--quiet", "OUTPUT_DIR", str(folder)]) == 0
        assert "INFO" not in capsys.readouterr().out
        log = (folder / "log.txt").read_text()
        assert "Running with full config" in log and "Done: results in" in log
    runs = [str(folder) for folder in folders.values()]
    output = tmp_path / "analysis"
    flags = ["--runtime", "detectron2"]
    assert analyze([*runs, "--output", str(output), *flags]) == 0
    content = json.loads((output / "analysis.json").read_text())
    page = tmp_path / "report.html"
    assert report([*runs, "--output", str(page), *flags]) == 0
    text = page.read_text()
    for title, folder in (("student alone", "student"), ("distilled", "distilled")):
        results = json.loads((folders[folder] / "results.json").read_text())
        value = results["figures"]["camvid_val"]["sem_seg"]["mIoU"]
        assert content["scores"][title]["mIoU"] == pytest.approx(value)
        assert f">{value:.4g}</span>" in text
    assert text.count("<img ") == 12
    assert set(content["taps"]["afdcd"]["distance"]) == {"relational", "aligned"}
    assert Path(content["runs"]["distilled"]) == folders["distilled"]
