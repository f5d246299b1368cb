"""tools/analyze.py on runs of a few iterations."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from afdcd.analysis import analyze, open_run, subject_of
from afdcd.analysis.analyze import Tap
from afdcd.analysis.runs import ALONE, DISTILLED, TEACHER
from afdcd.cli.analyze import main
from afdcd.distill.objectives import Objective, Objectives
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.losses import LOSSES


def run(folder: Path, *words: str) -> tuple[int, dict]:
    output = folder / "analysis"
    shutil.rmtree(output, ignore_errors=True)
    code = main([*words, "--output", str(output), "--runtime", "embedded"])
    path = output / "analysis.json"
    return code, json.loads(path.read_text()) if path.is_file() else {}


@pytest.mark.parametrize("name", ["distilled", "recorded"])
def test_figures(folder: Path, name: str, capsys):
    code, content = run(folder, str(folder / "student"), str(folder / name))
    assert code == 0 and content["images"] == content["of"] == 2
    assert "pixels right" in capsys.readouterr().out
    for title, finished in ((ALONE, "student"), (DISTILLED, name)):
        results = json.loads((folder / finished / "results.json").read_text())
        scores = results["figures"]["camvid_val"]
        assert content["scores"][title]["mIoU"] == pytest.approx(scores["mIoU"])
        for label, values in content["classes"].items():
            assert values["IoU"][title] == pytest.approx(scores[f"IoU-{label}"])
            assert values["boundary IoU"][title] == pytest.approx(scores[f"BoundaryIoU-{label}"])
    for key, score in (("pixels right", "pACC"), ("mean over classes", "mACC")):
        whole = content["hard cases"][key]["everything"]
        assert whole[ALONE] == pytest.approx(content["scores"][ALONE][score])
    rare = [label for label, v in content["classes"].items() if v["share of pixels"] < 1]
    assert content["hard cases"]["rare classes"] == rare
    assert ("rare classes" in content["hard cases"]["pixels right"]) == bool(rare)
    changed = content["changed most"]
    assert all(image["change"] > 0 for image in changed["gained"])
    assert all(image["change"] < 0 for image in changed["lost"])
    assert len(changed["gained"]) + len(changed["lost"]) <= 2
    assert list(content["taps"]) == ["logit_kd", "afdcd"]
    for tap in content["taps"].values():
        assert set(tap["linear CKA"]) == {ALONE, DISTILLED}
        assert all(0 <= value <= 1 for value in tap["linear CKA"].values())
        for shares in tap["self-similarity"]["shares"].values():
            assert sum(shares) == pytest.approx(1.0)
        # A student of other channels is compared behind the trained layers; the student alone has
        # none.
        assert set(tap["distance"]["relational"]) == {ALONE, DISTILLED}
        assert set(tap["distance"]["aligned"]) == {DISTILLED}
    figures = sorted(path.name for path in (folder / "analysis").glob("*.png"))
    assert "similarity_afdcd.png" in figures and len(figures) == 8
    assert len(list((folder / "analysis").glob("*.svg"))) == 8


def test_means_by_group_add_up(folder: Path):
    """The mean over all positions is among those over the groups."""
    subject = subject_of([open_run(folder / "distilled", EmbeddedRuntime)])
    content = analyze(subject, limit=1)
    assert (content["images"], content["of"]) == (1, 2)
    for distances in content["taps"]["afdcd"]["distance"].values():
        for values in distances.values():
            for by in ("class", "region size", "distance from a boundary"):
                found = values[by].values()
                assert min(found) <= values["all"] <= max(found)


def test_a_student_is_at_no_distance_from_itself(folder: Path):
    """With the student in the teacher's place."""
    subject = subject_of([open_run(folder / "distilled", EmbeddedRuntime)])
    student = subject.networks[DISTILLED]
    networks = {TEACHER: student, DISTILLED: student}
    content = analyze(replace(subject, networks=networks, trained=False))
    for tap in content["taps"].values():
        assert tap["linear CKA"] == {DISTILLED: pytest.approx(1.0)}
        assert tap["distance"]["relational"][DISTILLED]["all"] == pytest.approx(0.0, abs=1e-6)
        assert tap["self-similarity"]["Wasserstein distance from the teacher"] == {DISTILLED: 0.0}
    assert content["changed most"] == {}


def test_aligned_distance_by_hand():
    """Logits, which no layer stands behind: the teacher's channel is 0, 0, 4, 4 (variance 4), the
    student's 1, 0, 4, 2, and the last position doesn't count: then 0, 0, 4 (variance 32 / 9)."""
    objective = Objective("kd", "head", "head", {"logit_kd": 1.0})
    objectives = Objectives([objective], {"kd": LOSSES.get("logit_kd")()})
    teacher, student = (torch.tensor(v).view(1, 1, 2, 2) for v in ([0.0, 0, 4, 4], [1.0, 0, 4, 2]))
    labels = np.array([[0, 1], [1, -1]])
    groups = dict.fromkeys(("class", "region size", "distance from a boundary"), labels)
    tap = Tap(objective)
    maps = {TEACHER: teacher, DISTILLED: student}
    tap.add(maps, groups, objectives, keep=9, seed=0)
    aligned = tap.result(("road", "car"))["distance"]["aligned"][DISTILLED]
    assert aligned["all"] == pytest.approx((1 + 0 + 0) / 3 / (32 / 9))
    assert aligned["class"] == pytest.approx({"road": 1 / (32 / 9), "car": 0.0})


def test_who_is_who(folder: Path):
    """The teacher's own run isn't the student alone; the first student is."""
    teacher = folder / "teacher_run"
    if not teacher.exists():
        shutil.copytree(folder / "student", teacher)
    distilled = open_run(folder / "distilled", EmbeddedRuntime)
    distilled.cfg.MODEL.DISTILLER.TEACHER.WEIGHTS = str(teacher / "teacher.pth")
    shutil.copy(folder / "teacher.pth", teacher / "teacher.pth")
    names = ("student_s6", "student")
    others = [open_run(path, EmbeddedRuntime) for path in (teacher, *(folder / n for n in names))]
    subject = subject_of([*others, distilled])
    assert list(subject.networks) == [TEACHER, ALONE, DISTILLED] and subject.trained
    assert subject.folders[ALONE] == str(folder / "student_s6")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student"], "distils: name a run with a teacher, too"),
        (["nowhere"], "holds no config.yaml: name a run's folder"),
        (["distilled", "--teacher-weights", "gone.pth"], "its weights gone.pth are gone"),
        (["distilled", "--limit", "0"], "--limit must be at least 1"),
    ],
)
def test_errors(folder: Path, words: list[str], message: str, capsys):
    code, _ = run(folder, str(folder / words[0]), *words[1:])
    assert code == 2 and message in capsys.readouterr().err


def test_layers_that_are_gone(folder: Path, tmp_path):
    """Without model_final.pth there is no distance behind trained layers; the rest is there."""
    for name in ("config.yaml", "student_final.pth"):
        shutil.copy(folder / "distilled" / name, tmp_path / name)
    content = analyze(subject_of([open_run(tmp_path, EmbeddedRuntime)]), limit=1)
    assert all(set(tap["distance"]) == {"relational"} for tap in content["taps"].values())


def test_moved_weights(folder: Path, tmp_path):
    moved = tmp_path / "moved.pth"
    shutil.copy(folder / "teacher.pth", moved)
    code, content = run(folder, str(folder / "distilled"), "--teacher-weights", str(moved))
    assert code == 0 and content["runs"][TEACHER] == str(moved)


def test_an_expensive_teacher(folder: Path):
    """One that sees more pixels, mirror images too, and is averaged with another one."""
    run = open_run(folder / "distilled", EmbeddedRuntime)
    teacher = run.cfg.MODEL.DISTILLER.TEACHER
    run.cfg.INPUT.MIN_SIZE_TRAIN, run.cfg.INPUT.MIN_SIZE_TEST = [24], 24
    teacher.RESOLUTION, teacher.FLIP = 2.0, True
    teacher.OTHERS = [[str(folder / "configs/teacher.yaml"), str(folder / "teacher.pth")]]
    subject = subject_of([run])
    record = subject.task.dataset.records[0]
    teachers = subject.networks[TEACHER]
    output, maps, seen = teachers.see(record, ["backbone.res5"])
    student, small, _ = subject.networks[DISTILLED].see(record, ["backbone.res5"])
    assert seen == (48, 64) and maps["backbone.res5"].shape[-2:] == (6, 8)
    assert small["backbone.res5"].shape[-2:] == (3, 4)
    assert output["sem_seg"].shape == student["sem_seg"].shape == (11, 48, 64)
    # Averaged with itself over mirror images: unlike the plain one.
    plain = teachers.tapped([{**record, "image": _image(teachers, record)}])[0]["sem_seg"]
    assert not torch.allclose(plain, output["sem_seg"])
    content = analyze(subject, limit=1)
    assert content["taps"]["afdcd"]["distance"]["aligned"][DISTILLED]["all"] > 0


def _image(network, record) -> torch.Tensor:
    return network.settings.loading.evaluation_mapper()(record)["image"]
