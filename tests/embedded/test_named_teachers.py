"""Runs with teachers that are other people's models, and with classes matched by name."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from afdcd.cli.doctor import main as doctor
from afdcd.cli.record_teacher import main as record_teacher
from afdcd.cli.train_net import main as train_net
from afdcd.data import get_spec
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.engine.class_names import listed_classes
from afdcd.utils.problems import SetupError

from helpers.named_teachers import CLASSES, FUNCTION, write_named, write_program

TEACHER = "MODEL.DISTILLER.TEACHER"
FEATURES = {
    "NAME": "afdcd",
    "TAPS": [["backbone.res5", "maps.features"]],
    "POOL": 0,
    "GROUPS": 8,
    "DIMS": 16,
    "PATCH": [2, 2],
    "REDUCTION": "mean",
    "RECONSTRUCTION_WEIGHT": 33.6,
    "CONTRAST_WEIGHT": 0.08,
}
LOSSES = {
    "logit_kd": {"NAME": "logit_kd"},
    "feature_kd": {"NAME": "feature_kd", "TAPS": [["backbone.res4", "maps.features"]]},
    "context": FEATURES,
}


def train(config: Path, output: Path, *overrides: str) -> dict[str, Any]:
    run(configure(str(config), ["OUTPUT_DIR", str(output), *overrides]))
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_equal_runs(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("model", "distiller"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other[part][name]), name


@pytest.fixture
def code(tmp_path) -> Path:
    path = tmp_path / "their_net.py"
    path.write_text(FUNCTION)
    return path


@pytest.fixture
def named(configs, code) -> Path:
    """A config whose teacher has other channels, stride, normalization and classes."""
    return write_named(configs, f"{code}:net", losses=LOSSES, CLASSES=CLASSES)


def test_an_unlike_teacher_is_distilled_from(named, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        content = train(named, tmp_path / "run")
    assert "10 of" not in caplog.text and " 6  SignSymbol          2  Sign_Symbol" in caplog.text
    assert "1 of the student's 11 classes are not compared" in caplog.text
    assert "The teacher isn't scored: the teacher has no class Pavement" in caplog.text
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    losses = next(line for line in map(json.loads, lines) if "total_loss" in line)
    terms = {"loss_logit_kd", "loss_feature_kd", "loss_reconstruction", "loss_contrast"}
    assert all(losses[name] > 0 for name in terms)
    assert not any("their" in name or name.startswith("teacher") for name in content["model"])
    assert json.loads((tmp_path / "run/results.json").read_text()).get("teacher") in (None, {})


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_programs_are_the_function_in_a_file(configs, code, tmp_path, suffix: str):
    """The same network by three ways: all losses to rounding, and so the weights."""
    by_code = write_named(configs, f"{code}:net", losses=LOSSES, CLASSES=CLASSES)
    one = train(by_code, tmp_path / "code", "SOLVER.MAX_ITER", "2")
    path = write_program(tmp_path / f"net{suffix}")
    by_file = write_named(configs, str(path), losses=LOSSES, CLASSES=CLASSES)
    other = train(by_file, tmp_path / "file", "SOLVER.MAX_ITER", "2")
    for name, value in one["model"].items():
        torch.testing.assert_close(value, other["model"][name], rtol=1e-4, atol=1e-5)


def test_a_teacher_of_features_alone(configs, code, tmp_path, caplog):
    config = write_named(configs, f"{code}:features", losses={"context": FEATURES})
    with caplog.at_level(logging.INFO):
        train(config, tmp_path / "run")
    assert "isn't scored: the teacher's classes aren't known by name" in caplog.text
    flags = ["--runtime", "embedded", "--config-file", str(config)]
    assert doctor([*flags, "OUTPUT_DIR", str(tmp_path / "other")]) == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{TEACHER}.CLASSES", "[]"], "aren't known by name"),
        ([f"{TEACHER}.CLASSES", "[Sky, Road]"], "gives 12 channels, but its classes are 2"),
        ([f"{TEACHER}.CLASSES", "[a, b, c]"], "0 have the same name"),
        ([f"{TEACHER}.CLASSES", "[nowhere]"], "no data set of classes is called so"),
        ([f"{TEACHER}.CLASS_MAP", "{zebra: Pavment}"], "did you mean Pavement?"),
        ([f"{TEACHER}.CONFIG_FILE", "teacher.yaml"], "both CONFIG_FILE"),
        ([f"{TEACHER}.OPTS", "['SEED', '1']"], "no config that TEACHER.OPTS could change"),
        ([f"{TEACHER}.NAME", "absent.pt2"], "no checkpoint at"),
        ([f"{TEACHER}.NAME", "teacher.onnx"], "names no model of a known kind"),
        ([f"{TEACHER}.NAME", ""], "or a model of other people's"),
        ([f"{TEACHER}.IMAGES.FORMAT", "RBG"], "IMAGES.FORMAT is RGB or BGR"),
        ([f"{TEACHER}.OTHERS", "[[a.yaml, b.pth]]"], "leave it empty beside NAME"),
        (
            ["MODEL.DISTILLER.LOSSES.context.TAPS", "[[backbone.res5, model.stm]]"],
            "did you mean model.stem",
        ),
        (
            [
                *("MODEL.DISTILLER.LOSSES.context.TAPS", "[[backbone.res5, model.stem]]"),
                *(f"{TEACHER}.IMAGES.MULTIPLE", "24"),
            ],
            "the teacher of 24",
        ),
    ],
)
def test_what_cannot_work_is_said_before_training(named, tmp_path, capsys, overrides, words: str):
    flags = ["--runtime", "embedded", "--config-file", str(named)]
    assert train_net([*flags, "OUTPUT_DIR", str(tmp_path / "run"), *overrides]) == 2
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))
    assert doctor([*flags, "OUTPUT_DIR", str(tmp_path / "run"), *overrides]) != 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_the_doctor_says_what_is_matched(named, tmp_path, capsys):
    flags = ["--runtime", "embedded", "--config-file", str(named)]
    assert doctor([*flags, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Pedestrian (teacher's 11) pe-destrian" in said
    assert "2 of the teacher's 12 classes are not compared" in said and "zebra, train" in said
    assert "tap of the teacher: maps.features" in said


def test_the_table_of_a_config_is_read(named):
    content = yaml.safe_load(named.read_text())
    node = content["MODEL"]["DISTILLER"]["TEACHER"]
    node["CLASS_MAP"] = {"zebra": "Pavement", "train": None}
    named.write_text(yaml.safe_dump(content))
    setup = EmbeddedRuntime(configure(str(named), []))
    matching = setup.class_matching(setup.teacher())
    assert (4, 3) in matching.pairs and len(matching.pairs) == 11
    assert EmbeddedRuntime(setup.cfg.clone()).class_matching(setup.teacher()) == matching


def test_classes_of_a_file_and_of_a_data_set(named, tmp_path):
    (named.parent / "names.txt").write_text("\n".join(CLASSES) + "\n")
    content = yaml.safe_load(named.read_text())
    content["MODEL"]["DISTILLER"]["TEACHER"]["CLASSES"] = "names.txt"
    named.write_text(yaml.safe_dump(content))
    cfg = configure(str(named), [])
    assert listed_classes(cfg.MODEL.DISTILLER.TEACHER.CLASSES) == tuple(CLASSES)
    assert listed_classes(["camvid_train"]) == get_spec("camvid_train").classes


# --- two configs of this package's -----------------------------------------------------------

# camvid_train's classes, in the order that the rewritten teacher has them in.
ORDER = [3, 0, 7, 1, 10, 2, 9, 4, 8, 6, 5]


def reorder(configs: Path, order: list[int], extra: int = 0) -> Path:
    """The tiny teacher with its classes in another order, and ``extra`` others at the end."""
    content = torch.load(configs.parent / "teacher.pth", weights_only=True)
    for name in ("sem_seg_head.predictor.weight", "sem_seg_head.predictor.bias"):
        value = content["model"][name][order]
        # Classes of its own that it is sure of everywhere.
        own = torch.full_like(value[:1], 7.0).repeat(extra, *[1] * (value.dim() - 1))
        content["model"][name] = torch.cat([value, own])
    path = configs.parent / "reordered.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("extra", [0, 2])
def test_a_reordered_teacher_gives_the_same_run(configs, tmp_path, extra: int):
    """Logits, their targets and the teacher's score are those of the student's order."""
    whole = train(configs / "distilled.yaml", tmp_path / "whole")
    names = [get_spec("camvid_train").classes[k] for k in ORDER]
    names = [name.upper() for name in names] + [f"own {k}" for k in range(extra)]
    changed = (
        *(f"{TEACHER}.WEIGHTS", str(reorder(configs, ORDER, extra))),
        *(f"{TEACHER}.CLASSES", str(names)),
        *(f"{TEACHER}.OPTS", f"['MODEL.SEM_SEG_HEAD.NUM_CLASSES', '{11 + extra}']"),
    )
    matched = train(configs / "distilled.yaml", tmp_path / "matched", *changed)
    for name, value in whole["model"].items():
        torch.testing.assert_close(value, matched["model"][name], rtol=1e-4, atol=1e-6)
    figures = [
        json.loads((tmp_path / name / "results.json").read_text())["teacher"]
        for name in ("whole", "matched")
    ]
    assert figures[0] == pytest.approx(figures[1])
    if not extra:
        # Without the names it is another run.
        wrong = train(configs / "distilled.yaml", tmp_path / "wrong", *changed[:2])
        name = "sem_seg_head.predictor.weight"
        assert not torch.allclose(wrong["model"][name], whole["model"][name], atol=1e-4)


def test_configs_of_other_data_sets_match_where_asked_to(configs, tmp_path, capsys):
    teacher = {
        "_BASE_": "teacher.yaml",
        "MODEL": {"SEM_SEG_HEAD": {"NUM_CLASSES": 19}},
        "DATASETS": {"TRAIN": ["cityscapes_fine_sem_seg_train"]},
    }
    (configs / "city.yaml").write_text(yaml.safe_dump(teacher))
    setup = EmbeddedRuntime(configure(str(configs / "city.yaml"), []))
    torch.manual_seed(1)
    torch.save({"model": setup.build().state_dict()}, tmp_path / "city.pth")
    flags = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    flags += ["OUTPUT_DIR", str(tmp_path / "run"), f"{TEACHER}.WEIGHTS", str(tmp_path / "city.pth")]
    flags += [f"{TEACHER}.CONFIG_FILE", str(configs / "city.yaml")]
    assert train_net(flags) == 2
    assert "has 11 classes and" in capsys.readouterr().err
    table = "{sidewalk: Pavement, vegetation: Tree, traffic sign: SignSymbol, person: Pedestrian}"
    assert train_net([*flags, f"{TEACHER}.CLASS_MAP", table]) == 0
    setup = EmbeddedRuntime(
        configure(str(configs / "distilled.yaml"), [*flags[4:], f"{TEACHER}.MATCH_CLASSES", "True"])
    )
    names = [
        get_spec("camvid_train").classes[k] for k, _ in setup.class_matching(setup.teacher()).pairs
    ]
    assert names == ["Sky", "Building", "Pole", "Road", "Fence", "Car"]


# --- recorded ---------------------------------------------------------------------------------


def recorded(folder: Path, *more: str) -> list[str]:
    return [f"{TEACHER}.RECORD.FOLDER", str(folder), f"{TEACHER}.RECORD.VIEWS", "1", *more]


def test_recorded_ahead_or_as_it_goes(named, code, tmp_path):
    flags = ["--runtime", "embedded", "--config-file", str(named)]
    assert record_teacher([*flags, *recorded(tmp_path / "record")]) == 0
    ahead = train(named, tmp_path / "a", *recorded(tmp_path / "record"))
    as_it_goes = train(named, tmp_path / "b", *recorded(tmp_path / "other"))
    assert_equal_runs(ahead, as_it_goes)
    manifest = json.loads((tmp_path / "record/record.json").read_text())
    assert manifest["classes"] == [1, 4, 5, 0, 7, 2, 8, 6, 11, 9]
    assert manifest["teachers"][0]["config"]["NAME"] == f"{code}:net"
    # A complete record takes no teacher.
    shutil.move(code, tmp_path / "elsewhere.py")
    again = train(named, tmp_path / "c", *recorded(tmp_path / "record"))
    assert_equal_runs(ahead, again)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{TEACHER}.IMAGES.FORMAT", "BGR"], "IMAGES.FORMAT: RGB -> BGR"),
        ([f"{TEACHER}.LOGITS_STRIDE", "8"], "LOGITS_STRIDE: "),
        ([f"{TEACHER}.CLASS_MAP", "{zebra: Pavement}"], "logits are compared by: "),
        ([f"{TEACHER}.NAME", "{code}:features"], "NAME: "),
    ],
)
def test_records_of_something_else_are_refused(named, code, tmp_path, overrides, words: str):
    train(named, tmp_path / "a", *recorded(tmp_path / "record"))
    overrides = [word.replace("{code}", str(code)) for word in overrides]
    with pytest.raises(SetupError) as error:
        train(named, tmp_path / "b", *recorded(tmp_path / "record"), *overrides)
    assert words in str(error.value)


def test_logits_of_a_coarser_grid_take_less_room(configs, code, tmp_path, caplog):
    """A position of 8x8 pixels in place of four of 4x4."""
    config = write_named(
        configs, f"{code}:net", losses={"logit_kd": LOSSES["logit_kd"]}, CLASSES=CLASSES
    )
    sizes = []
    for stride in ("0", "8"):
        folder = tmp_path / f"record_{stride}"
        with caplog.at_level(logging.INFO, "afdcd"):
            train(config, tmp_path / stride, f"{TEACHER}.LOGITS_STRIDE", stride, *recorded(folder))
        sizes += [float(size) for size in re.findall(r"views .*, ([0-9.]+) KiB each", caplog.text)]
        caplog.clear()
    assert sizes[0] == pytest.approx(4 * sizes[1], abs=0.1)


def test_a_record_of_other_code_is_refused(named, code, tmp_path):
    train(named, tmp_path / "a", *recorded(tmp_path / "record"))
    code.write_text(code.read_text() + "\n# changed\n")
    with pytest.raises(SetupError, match="the teacher's weights are another file's"):
        train(named, tmp_path / "b", *recorded(tmp_path / "record"))


def test_of_twice_the_resolution(named, tmp_path):
    more = [
        f"{TEACHER}.RESOLUTION",
        "2.0",
        "INPUT.MIN_SIZE_TRAIN",
        "[24]",
        "INPUT.MIN_SIZE_TEST",
        "24",
    ]
    live = train(named, tmp_path / "a", *more)
    record = train(named, tmp_path / "b", *more, *recorded(tmp_path / "record"))
    assert live["model"].keys() == record["model"].keys()
    with pytest.raises(SetupError, match=r"RESOLUTION: 2.0 -> 1.5"):
        train(
            named,
            tmp_path / "c",
            *more,
            *recorded(tmp_path / "record"),
            *(f"{TEACHER}.RESOLUTION", "1.5"),
        )


def test_windows_scales_and_mirror_images(named, tmp_path):
    """Of the teacher's logits, and of its score, by a table that gives it all classes."""
    more = [
        *(f"{TEACHER}.CLASS_MAP", "{zebra: Pavement}"),
        *(f"{TEACHER}.FLIP", "True", f"{TEACHER}.SCALES", "[1.0, 1.5]"),
        *("TEST.WINDOW", "[32, 32]"),
    ]
    train(named, tmp_path / "a", *more)
    teacher = json.loads((tmp_path / "a/results.json").read_text())["teacher"]
    assert 0 <= teacher["mIoU"] < 100
