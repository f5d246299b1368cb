"""Teachers of other classes, and teachers whose training had failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main as train
from afdcd.embedded.runtime import configure
from afdcd.models import build_segmentor_from_config


@pytest.fixture
def command(configs, tmp_path):
    def words(name: str) -> list[str]:
        file = str(configs / f"{name}.yaml")
        folder = str(tmp_path / name)
        return ["--runtime", "embedded", "--config-file", file, "OUTPUT_DIR", folder]

    return words


@pytest.fixture
def teacher_of_five(configs, tmp_path) -> Path:
    """Distillation configs whose teacher has five classes, with and without a loss of logits."""
    teacher = {
        "_BASE_": "teacher.yaml",
        "MODEL": {"SEM_SEG_HEAD": {"NUM_CLASSES": 5}},
        "DATASETS": {"TRAIN": ["five_train"], "TEST": ["five_val"]},
    }
    (configs / "five.yaml").write_text(yaml.safe_dump(teacher))
    model = build_segmentor_from_config(configure(str(configs / "five.yaml"), []))
    torch.save({"model": model.state_dict()}, tmp_path / "five.pth")
    settings = {"CONFIG_FILE": "five.yaml", "WEIGHTS": str(tmp_path / "five.pth")}
    for name, losses in (("logits", {}), ("features", {"logit_kd": None})):
        content = {"MODEL": {"DISTILLER": {"TEACHER": settings, "LOSSES": losses}}}
        (configs / f"{name}.yaml").write_text(
            yaml.safe_dump({"_BASE_": "distilled.yaml", **content})
        )
    return configs


def test_a_setting_that_cannot_work_is_said_once(command, capsys):
    assert train([*command("distilled"), "MODEL.DISTILLER.TEACHER.LOGITS_STRIDE", "-3"]) == 2
    said = capsys.readouterr().err
    assert said.count("LOGITS_STRIDE") == 1 and "OTHERS" not in said


def test_other_classes_under_a_loss_of_logits_are_refused(teacher_of_five, command, capsys):
    assert train(command("logits")) == 2
    said = capsys.readouterr().err
    assert "the teacher has 5 classes (NUM_CLASSES), the student 11" in said
    assert "distil features alone" in said
    assert doctor(command("logits")) != 0
    assert "distil features alone" in " ".join(capsys.readouterr().out.split())


def test_features_alone_are_distilled_and_the_teacher_not_scored(
    teacher_of_five, command, capsys, tmp_path, caplog
):
    assert doctor(command("features")) == 0
    assert "so it isn't scored" in " ".join(capsys.readouterr().out.split())
    with caplog.at_level("INFO"):
        assert train(command("features")) == 0
    assert "Teacher on" not in caplog.text and "(teacher" not in caplog.text
    assert (tmp_path / "features/student_final.pth").is_file()


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda weight: weight.fill_(float("nan")), "values that are not finite, in 1 entries"),
        (lambda weight: weight.fill_(0.5), "constant convolutions, 1 such as"),
    ],
)
def test_a_teacher_whose_training_had_failed(configs, command, tmp_path, capsys, spoil, part: str):
    content = torch.load(tmp_path / "teacher.pth", weights_only=True)
    spoil(content["model"]["backbone.res4.0.conv1.weight"])
    torch.save(content, tmp_path / "teacher.pth")
    assert train(command("distilled")) == 2
    said = capsys.readouterr().err
    assert part in said and "backbone.res4.0.conv1.weight" in said and "the teacher: " in said
    assert doctor(command("distilled")) != 0
    assert part in " ".join(capsys.readouterr().out.split())


def test_a_student_to_score_whose_training_had_failed(configs, command, tmp_path, capsys):
    content = torch.load(tmp_path / "teacher.pth", weights_only=True)
    content["model"]["backbone.res4.0.conv1.weight"].fill_(float("inf"))
    torch.save(content, tmp_path / "bad.pth")
    words = command("teacher")
    assert train(["--eval-only", *words, "MODEL.WEIGHTS", str(tmp_path / "bad.pth")]) == 2
    assert "values that are not finite" in capsys.readouterr().err
