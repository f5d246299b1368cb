"""Figures of several runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afdcd.analysis.summary import POINTS, curves, find_ways, interval, summarize
from afdcd.utils.problems import SetupError


def test_interval_by_hand():
    """Of 1, 2 and 6: mean 3, deviation 7^0.5, and t = 4.303 with two degrees of freedom."""
    found = interval([1.0, 2.0, 6.0])
    reach = 4.30265 * (7 / 3) ** 0.5
    assert found["low"] == pytest.approx(3 - reach, abs=1e-4)
    assert found["high"] == pytest.approx(3 + reach, abs=1e-4)
    assert interval([5.0]) == {"mean": 5.0, "low": None, "high": None, "seeds": 1}


def test_curves_keep_their_ends(tmp_path):
    path = tmp_path / "metrics.json"
    lines = [{"iteration": n, "total_loss": n / 2, "lr": 1.0} for n in range(1000)]
    lines += [{"iteration": 999, "val/mIoU": 40.0, "val/IoU-car": 1.0, "val/pACC": None}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 10')  # cut off
    found = curves(path, "mIoU")
    assert found.keys() == {"total_loss", "val/mIoU"} and found["val/mIoU"] == [[1000, 40.0]]
    losses = found["total_loss"]
    assert len(losses) <= POINTS and losses[-1] == [1000, 499.5] and losses == sorted(losses)
    assert curves(tmp_path / "gone.json", "mIoU") == {}


def test_runs_are_sorted_by_their_settings(folder: Path):
    words = [str(folder / name) for name in ("student", "distilled", "student_s6")]
    ways = find_ways(words)
    assert [(name, [run.seed for run in runs]) for name, runs in ways.items()] == [
        ("student", [5, 6]),
        ("distilled", [5]),
    ]
    named = find_ways([f"mine={folder}/student*", words[1]])
    assert list(named) == ["mine", "distilled"] and len(named["mine"]) == 2
    with pytest.raises(SetupError, match="no folder"):
        find_ways(["nowhere"])


def test_summary(folder: Path):
    ways = find_ways([str(folder / n) for n in ("distilled", "recorded", "student", "student_s6")])
    content = summarize(ways)
    assert content["metric"] == "mIoU" and content["higher_is_better"]
    rows = {way["name"]: way for way in content["ways"]}
    assert [(way["name"], way["role"]) for way in content["ways"]] == [
        ("student", "alone"),
        ("distilled", "distilled"),
        ("recorded", "distilled"),
    ]
    found = {}
    for name in ("student", "student_s6", "distilled"):
        results = json.loads((folder / name / "results.json").read_text())
        found[name] = results["figures"]["camvid_val"]["mIoU"]
    mean = (found["student"] + found["student_s6"]) / 2
    assert rows["student"]["score"]["mean"] == pytest.approx(mean)
    gain = rows["distilled"]["gain"]
    assert gain["mean"] == pytest.approx(found["distilled"] - mean) and gain["error"] is None
    assert rows["recorded"]["cost"]["seconds_recording"] > 0
    assert rows["student"]["cost"]["times_alone"] == 1.0
    keys = content["settings"]
    assert keys["MODEL.META_ARCHITECTURE"] == ["SemanticSegmentor", "Distiller", "Distiller"]
    assert keys["MODEL.DISTILLER.LOSSES.afdcd.DIMS"] == [None, None, 16]
