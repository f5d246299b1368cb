"""The doctor: OK on a sound set-up, and never a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afdcd.checks.gradients import FACT
from afdcd.cli.doctor import main
from afdcd.utils.findings import Report

from helpers.camvid_files import write_camvid
from helpers.doctor_case import examine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_sound_set_up(case, capsys):
    start = time.perf_counter()
    report = examine(case, capsys)
    spent = time.perf_counter() - start
    assert report["fix"] == [] and report["ok"]
    facts = report["facts"]
    assert facts["tap of the student: backbone.res5"]["stride"] == 8
    assert facts["patch grid"]["covers"] == [4, 4]
    assert set(facts["losses"]) >= {"loss_sem_seg", "loss_logit_kd", "loss_reconstruction"}
    norms = facts[FACT]["backbone.res5"]
    assert norms["loss_sem_seg"] > 0 and norms["loss_contrast"] > 0
    assert 0 < facts["time"]["s/step"] < spent
    weights = (case.folder / "teacher.pth").stat().st_size / 2**30
    assert weights < facts["memory"]["a step needs at least, GiB"] < 100 * weights
    (miou, baseline) = facts["teacher"].values()
    assert miou > 2 * baseline, facts
    assert not (case.folder / "out").exists()  # a dry run leaves nothing behind


def test_a_teacher_of_its_own_resolution(case, capsys):
    """Its logits stay on their own grid; its other maps come to the student's."""
    case.override("MODEL.DISTILLER.TEACHER.RESOLUTION", "2")
    report = examine(case, capsys)
    logits, features = "sem_seg_head.predictor", "backbone.res5"
    sizes = {
        (whose, path): report["facts"][f"tap of the {whose}: {path}"]["size"]
        for whose in ("student", "teacher")
        for path in (logits, features)
    }
    assert sizes["teacher", logits] == [2 * side for side in sizes["student", logits]]
    assert sizes["teacher", features] == sizes["student", features]
    said = [note["text"] for note in report["notes"] if note["kind"] == "stride"]
    assert len(said) == 1 and said[0].endswith("they are compared on the finer grid")


def test_student_alone_and_text(case, capsys):
    words = ["--runtime", "embedded", "--config-file", str(case.folder / "student.yaml")]
    assert main([*words, "OUTPUT_DIR", str(case.folder / "out")]) == 0
    assert capsys.readouterr().out.rstrip().endswith("OK")


def test_incomplete_benchmark(case, capsys, monkeypatch):
    write_camvid(case.folder / "root/camvid", train=3, val=2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(case.folder / "root"))
    case.override("DATASETS.TRAIN", "['camvid_train']", "DATASETS.TEST", "['camvid_val']")
    case.override("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "11")
    report = examine(case, capsys, "student")
    texts = [f["text"] for f in report["notes"] if f["kind"] == "incomplete"]
    assert "camvid_train: 3 images found, but 367 are published" in texts


def test_the_command_never_shows_a_traceback(case):
    (case.folder / "teacher.pth").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "tools/doctor.py", "--config-file", str(case.folder / "distilled.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "To fix (" in done.stdout and "teacher.pth" in done.stdout


def test_suggested_weight_balances_the_gradients(case, capsys):
    case.override("MODEL.DISTILLER.LOSSES.afdcd.RECONSTRUCTION_WEIGHT", "1e6")
    report = examine(case, capsys)
    norms = report["facts"][FACT]["backbone.res5"]
    ratio = norms["loss_reconstruction"] / norms["loss_sem_seg"]
    (text,) = [f["text"] for f in report["fix"] if f["kind"] == "loss-weight"]
    assert f"multiplied by {1 / ratio:.1g} would make them equal" in text


def test_every_tap_is_judged(case, capsys):
    taps = "[['backbone.res4','backbone.res4'],['backbone.res5','backbone.res5']]"
    case.override("MODEL.RESNETS.OUT_FEATURES", "['res4','res5']")
    case.override("MODEL.DISTILLER.LOSSES.afdcd.TAPS", taps)
    case.override("MODEL.DISTILLER.LOSSES.afdcd.WEIGHT", "[1.0e+7,1.0]")
    report = examine(case, capsys)
    expected = {"sem_seg_head.predictor", "backbone.res4", "backbone.res5"}
    assert set(report["facts"][FACT]) == expected
    texts = [f["text"] for f in report["fix"] if f["kind"] == "loss-weight"]
    assert texts and all("at the student's backbone.res4" in text for text in texts)


def test_gradient_norms_follow_the_weights(case, capsys):
    norms = []
    for weight in ("1.0", "3.0"):
        case.override("MODEL.DISTILLER.LOSSES.logit_kd.WEIGHT", weight)
        norms.append(examine(case, capsys)["facts"][FACT]["sem_seg_head.predictor"])
    assert norms[1]["loss_logit_kd"] == pytest.approx(3 * norms[0]["loss_logit_kd"], rel=1e-3)
    assert norms[1]["loss_sem_seg"] == pytest.approx(norms[0]["loss_sem_seg"], rel=1e-3)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(max_size=80), which=st.sampled_from(["distilled.yaml", "data.yaml"]))
def test_fuzzed_configs_and_descriptions(sound, tmp_path_factory, capsys, data, which):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_setup"
    if not folder.is_dir():
        shutil.copytree(sound, folder)
    kept = (folder / which).read_bytes()
    (folder / which).write_bytes(data)
    try:
        assert main(["--json", "--config-file", str(folder / "distilled.yaml")]) == 1
    finally:
        (folder / which).write_bytes(kept)
    assert json.loads(capsys.readouterr().out)["fix"]


def test_report_in_json_has_no_infinities():
    report = Report()
    report.facts["x"] = {"a": float("inf"), "b": float("nan"), "c": [1.5]}
    assert json.loads(report.json())["facts"]["x"] == {"a": None, "b": None, "c": [1.5]}
