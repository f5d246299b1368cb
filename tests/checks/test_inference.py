"""Settings of ``TEST`` that a model or an image can't take are refused before training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from afdcd.checks.inference import inference_problems
from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main as train
from afdcd.evaluation.settings import InferenceSettings
from afdcd.models import HEADS, build_segmentor
from afdcd.models.heads.registry import Head

FLIPPED = InferenceSettings(flip=True)


@HEADS.register("head_of_forward_alone")
class ForwardAlone(Head):
    """A head as small as the protocol allows."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.predictor, self.ignore_value = torch.nn.Conv2d(channels, classes, 1), 255

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"channels": input_shape["res5"].channels, "classes": 11}

    def forward(self, features, targets=None):
        logits = F.interpolate(self.predictor(features["res5"]), size=features.image_size)
        if targets is None:
            return logits, {}
        return None, {"loss_sem_seg": F.cross_entropy(logits, targets, ignore_index=255)}


@pytest.fixture(scope="module")
def model():
    return build_segmentor("deeplabv3", "mobilenetv2", 3, width_mult=0.25, hidden_channels=4)


def test_a_model_that_takes_them_stays_as_it_is(model):
    before = copy.deepcopy(model.state_dict())
    for training in (True, False):
        settings = InferenceSettings(scales=(0.5, 1.5), flip=True, window=(32, 40))
        assert inference_problems(settings, model.train(training)) == []
        assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_it_does_not_take_is_said(model):
    head = ForwardAlone(3, 2)
    other = copy.deepcopy(model)
    other.sem_seg_head = head
    assert inference_problems(InferenceSettings(), other) == []
    (problem,) = inference_problems(FLIPPED, other)
    assert "ForwardAlone has no layers()" in problem
    padded = copy.deepcopy(model)
    padded.backbone.size_divisibility = 32
    (problem,) = inference_problems(FLIPPED, padded)
    assert "multiples of 32 pixels: leave them off" in problem
    (problem,) = inference_problems(FLIPPED, torch.nn.Identity())
    assert "take a SemanticSegmentor; got Identity" in problem


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["MODEL.SEM_SEG_HEAD.NAME", "head_of_forward_alone", "TEST.FLIP", "True"], "no layers()"),
        (["TEST.SCALES", "[1.0,0.001]"], "TEST.SCALES 0.001 leaves no pixel of camvid_val"),
    ],
)
def test_before_training_and_in_the_doctor(configs, tmp_path, capsys, words: list[str], part: str):
    command = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    words = [*command, *words, "MODEL.SEM_SEG_HEAD.AUX_WEIGHT", "0.0"]
    words += ["OUTPUT_DIR", str(tmp_path / "run")]
    assert train(words) == 2
    assert part in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))
    assert doctor(words) != 0
    assert part in " ".join(capsys.readouterr().out.split())
