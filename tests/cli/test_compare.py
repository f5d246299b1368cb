"""Comparison of runs of several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from afdcd.cli.compare import main
from afdcd.embedded.run import run
from afdcd.engine.results import read_run


def write_run(folder: Path, seed: int, miou: float, **settings: Any) -> None:
    folder.mkdir(parents=True)
    content = {"seed": seed, "figures": {"scenes.yaml:val": {"mIoU": miou}}, "seconds": 60.0 + seed}
    (folder / "results.json").write_text(json.dumps(content))
    config = {"SEED": seed, "OUTPUT_DIR": str(folder), "SOLVER": {"MAX_ITER": 10}, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, (alone, distilled) in enumerate([(40.0, 41.0), (42.0, 44.0), (41.0, 44.0)], 1):
        write_run(tmp_path / f"student_s{seed}", seed, alone)
        write_run(tmp_path / f"afdcd_s{seed}", seed, distilled, MODEL={"WEIGHTS": "x"})
    write_run(tmp_path / "student_s7", 7, 50.0)
    (tmp_path / "student_s1.log").write_text("")
    return tmp_path


def test_two_ways(folder, capsys):
    assert main([f"student={folder}/student_s*", f"afdcd={folder}/afdcd_s?"]) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert ["mIoU", "student", "afdcd"] in lines
    assert ["seed", "2", "42.00", "44.00"] in lines and ["seed", "7", "50.00", "-"] in lines
    assert ["mean", "43.25", "43.00"] in lines and ["deviation", "4.57", "1.73"] in lines
    assert (
        "afdcd - student: +2.00, standard error 0.58, over 3 seeds; p = 0.25 (sign-flip test): "
        "could be chance" in said
    )
    assert "at equal iterations and equal time: training took 62 s, not 62 s" in said
    assert "per doubling" not in said and "by class" not in said
    assert "MODEL.WEIGHTS: (none) -> x" in said
    assert "SEED" not in said and "OUTPUT_DIR" not in said


def test_the_price_of_a_gain_and_scores_by_class(folder, capsys):
    for seed in (1, 2):
        classes = {"IoU-road": 60.0 + seed, "IoU-pole": 2.0 * seed - 2}
        write_run(folder / f"long_s{seed}", seed, 45.0, SOLVER={"MAX_ITER": 20})
        write_run(folder / f"d_s{seed}", seed, 46.0, MODEL={"META_ARCHITECTURE": "Distiller"})
        path = folder / f"d_s{seed}/results.json"
        content = json.loads(path.read_text()) | {"seconds_recording": 61.5}
        content["figures"]["scenes.yaml:val"] |= classes
        path.write_text(json.dumps(content))
    ways = [f"{name}={folder}/{name}_s*" for name in ("long", "d")]
    assert main([f"student={folder}/student_s[12]", *ways]) == 0
    said = capsys.readouterr().out
    # 45 instead of 40 and 42 in a doubling; 46 with a teacher: 5 / 4 doublings. A record takes as
    # long as a run.
    assert "The student alone: +4.00 points of mIoU per doubling" in said
    assert "d gains +5.00 over student at equal iterations: worth 2.38 times" in said
    assert "a step cost 1.00 times the student's; with 62 s of recording, 1.50 if 2 runs" in said
    assert "at equal iterations: training took 62 s and recording 62 s, not 62 s" in said
    assert "at equal time: training took 62 s, not 62 s" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["road", "-", "-", "61.50"] in lines and ["pole", "-", "-", "1.00"] in lines
    assert "pole is at 0 in 1 of 2 runs of d: its mean IoU moves by chance" in said


def test_runs_of_other_settings_are_named(folder, capsys):
    write_run(folder / "afdcd_s4", 4, 41.0, MODEL={"WEIGHTS": "y"})
    assert main([f"afdcd={folder}/afdcd_s1,{folder}/afdcd_s4"]) == 0
    assert "Not all runs of afdcd have the same settings: MODEL.WEIGHTS" in capsys.readouterr().out


def test_what_runs_write_is_read(configs, capsys):
    from afdcd.embedded.runtime import configure

    for seed in (1, 2):
        words = ["SEED", str(seed), "OUTPUT_DIR", f"{configs}/out_{seed}", "SOLVER.MAX_ITER", "2"]
        run(configure(str(configs / "student.yaml"), words), num_gpus=0)
    found = read_run(configs / "out_2")
    assert found.seed == 2 and found.settings["SOLVER.MAX_ITER"] == 2
    assert main([f"a={configs}/out_*", f"b={configs}/out_*", "--metric", "mBoundaryIoU"]) == 0
    assert "b - a: +0.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student"], "a way is NAME=FOLDERS"),
        (["a={}/student_s1", "a={}/afdcd_s1"], "two ways are called a"),
        (["a={}/nothing*"], "no folder"),
        (["a={}"], "holds no results.json"),
        (["a={}/student_s1,{}/afdcd_s1"], "both have seed 1"),
        (["a={}/student_s1", "--metric", "PQ"], "has no PQ: there are mIoU"),
        (["a={}/student_s1", "--data-set", "b"], "tested on scenes.yaml:val, not on b"),
    ],
)
def test_mistakes(folder, capsys, words, message):
    assert main([word.format(folder, folder) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_folders_with_commas_in_their_names(folder, capsys):
    (folder / "student_s1").rename(folder / "lr 0.1, long_s1")
    (folder / "student_s2").rename(folder / "lr 0.1, long_s2")
    assert main([f"a={folder}/lr 0.1, long_s*"]) == 0
    assert "seed 1" in capsys.readouterr().out
    assert main([f"a={folder}/lr 0.1, long_s1,{folder}/afdcd_s2"]) == 2
    assert f"no folder {folder}/lr 0.1" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"seed": 1, "figures": [], "seconds": 1}'])
def test_broken_results(folder, capsys, text):
    (folder / "student_s1/results.json").write_text(text)
    assert main([f"a={folder}/student_s*"]) == 2
    assert "student_s1/results.json isn't what a finished run writes: " in capsys.readouterr().err


def test_several_figures_of_a_name(folder, capsys):
    path = folder / "student_s1/results.json"
    content = json.loads(path.read_text())
    content["figures"] = {"v": {"sem_seg": {"mIoU": 1.0}}, "w": {"sem_seg": {"mIoU": None}}}
    path.write_text(json.dumps(content))
    way = f"a={folder}/student_s1"
    assert main([way]) == 2
    assert "several mIoU (sem_seg.mIoU on v, sem_seg.mIoU on w)" in capsys.readouterr().err
    assert main([way, "--data-set", "v", "--metric", "sem_seg.mIoU"]) == 0
    assert main([way, "--data-set", "w"]) == 2
    assert "mIoU is None" in capsys.readouterr().err
