"""The first look, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from afdcd.cli.quickstart import _in_words, main
from afdcd.data.synthetic import dataset as synthetic

CONFIGS = Path(__file__).parents[2] / "configs/quickstart"


@pytest.mark.slow
def test_ends_with_table_figures_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.setattr(synthetic, "SPLITS", {"train": (8, 1), "val": (9, 2)})
    output = tmp_path / "out"
    words = ["--configs", str(CONFIGS), "--output", str(output)]
    overrides = ["SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2"]
    assert main([*words, *overrides]) == 0
    results = json.loads((output / "results.json").read_text())
    assert list(results) == ["teacher", "student", "distilled"]
    for role, figures in results.items():
        run = json.loads((output / role / "results.json").read_text())
        assert figures["miou"] == run["figures"]["synthetic_scenes_val"]["mIoU"]
        assert figures["seconds_per_step"] == pytest.approx(figures["seconds"] / 3)
        assert figures["iterations"] == 3 and figures["macs"] > figures["params"]
    student, distilled = results["student"], results["distilled"]
    for same in ("params", "macs", "seed"):
        assert student[same] == distilled[same]
    assert results["teacher"]["params"] > 10 * student["params"]

    printed = capsys.readouterr().out
    for figures in results.values():
        assert f"{figures['miou']:.2f}" in printed
    assert "At equal iterations (3)" in printed and str(output / "results.json") in printed
    report = (output / "report.html").read_text()
    assert str(output / "report.html") in printed
    for figures in results.values():
        assert f">{figures['miou']:.4g}</span>" in report
    panels = sorted((output / "panels").glob("*.png"))
    assert len(panels) == 8
    height, width = cv2.imread(str(panels[0])).shape[:2]
    assert height > 2 * 96 and width > 6 * 2 * 128  # six pictures, twice their size

    # Again: nothing is trained anew.
    assert main([*words, *overrides]) == 0
    again = json.loads((output / "results.json").read_text())
    assert again["distilled"]["miou"] == distilled["miou"]


def test_closing_words():
    """By what the run measured; where it was too short, by the seconds of a step."""
    roles = ("teacher", "student", "distilled")
    results: dict[str, dict] = {
        role: {
            "miou": 40.0 + n,
            "seconds_per_step": 1.0 + n,
            "iterations": 3,
            "times_student": None,
        }
        for n, role in enumerate(roles)
    }
    results["distilled"] |= {"seconds_per_step": 5.0, "seconds_recording": 0.0}
    said = _in_words(results)
    assert "changed the student's mIoU by +1.00 points (teacher 40.00)" in said
    assert "cost 2.5 times the student's own step: at equal time" in said
    results["distilled"] |= {"times_student": 1.84, "seconds_recording": 12.4}
    said = _in_words(results)
    assert "cost 1.8 times the student's own step, and recording the teacher took 12 s" in said
