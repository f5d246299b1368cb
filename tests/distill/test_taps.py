"""Feature taps: what they collect, when they stop, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from afdcd.distill import FeatureTaps, TapError, tap_shapes
from afdcd.losses.registry import TapShape
from afdcd.models import build_segmentor


class Counting(nn.Conv2d):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Counting(1, 2, 1)
        self.second = Counting(2, 3, 1)
        self.flat = nn.Flatten()
        self.unused = nn.ModuleDict({"a": nn.Identity()})

    def forward(self, x):
        return self.flat(self.second(self.first(x)))


def test_collects_outputs_and_leaves_no_hooks():
    model, x = Toy(), torch.randn(1, 1, 4, 4)
    with FeatureTaps(model, ["first", "second"]) as taps:
        model(x)
    torch.testing.assert_close(taps["first"], model.first(x))
    torch.testing.assert_close(taps["second"], model.second(model.first(x)))
    assert not any(module._forward_hooks for module in model.modules())


def test_gradients_flow_through_taps():
    model = Toy()
    with FeatureTaps(model, ["first"]) as taps:
        model(x := torch.randn(1, 1, 4, 4))
    taps["first"].sum().backward()
    # A 1x1 convolution: the slope of each of its weights is the sum of what it is multiplied by.
    torch.testing.assert_close(model.first.weight.grad.flatten(), x.sum().expand(2))
    assert model.second.weight.grad is None


def test_stops_at_the_last_tap():
    model = Toy()
    with FeatureTaps(model, ["first"], stop_early=True) as taps:
        model(torch.randn(1, 1, 4, 4))
        pytest.fail("the forward went on")
    assert taps["first"].shape == (1, 2, 4, 4)
    assert (model.first.calls, model.second.calls) == (1, 0)
    assert not model.first._forward_hooks


def test_early_stop_restores_autocast_and_grad_mode():
    model = Toy()
    with (
        torch.no_grad(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        FeatureTaps(model, ["first"], stop_early=True),
    ):
        model(torch.randn(1, 1, 4, 4))
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_hooks_are_removed_after_an_error():
    model = Toy()
    with pytest.raises(RuntimeError), FeatureTaps(model, ["first", "second"]):
        model(torch.randn(1, 5, 4, 4))
    assert not any(module._forward_hooks for module in model.modules())


def test_taps_survive_deepcopy():
    model = Toy()
    with FeatureTaps(model, ["first"]) as taps:
        twin = copy.deepcopy(model)
        model(torch.zeros(1, 1, 4, 4))
        before = taps["first"]
        twin(torch.ones(1, 1, 4, 4))
        assert taps["first"] is before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("backbone.res6", r"no module 'backbone.res6': 'backbone' holds stem, res2, .*res5"),
        ("backbone.ress5", "did you mean backbone.res5"),
        ("backbone.res5.7.conv1", r"'backbone.res5' holds 0, 1, not '7'"),
        ("decoder", "the model holds backbone, sem_seg_head"),
        ("", "no module ''"),
    ],
)
def test_unknown_paths_list_near_ones(path: str, message: str):
    with pytest.raises(TapError, match=message):
        FeatureTaps(build_segmentor(num_classes=2), [path])


def test_outputs_that_are_no_feature_map():
    message = r"'flat' gives a tensor of shape \(1, 48\)"
    with pytest.raises(TapError, match=message), FeatureTaps(Toy(), ["flat"]) as taps:
        taps._modules["flat"](torch.zeros(1, 3, 4, 4))
    model = build_segmentor(num_classes=2).eval()
    with pytest.raises(TapError, match="'backbone' gives FeatureMaps, but a tap takes one feature"):
        tap_shapes(model, ["backbone"])


def test_modules_that_do_not_run():
    with pytest.raises(TapError, match="ran without calling unused"):
        tap_shapes_of_toy(Toy(), ["unused"])


def tap_shapes_of_toy(model: nn.Module, paths: list[str]) -> None:
    with FeatureTaps(model, paths):
        model(torch.zeros(1, 1, 4, 4))


def test_modules_that_run_twice():
    model = Toy()
    with pytest.raises(TapError, match="several times"), FeatureTaps(model, ["first"]):
        model(torch.zeros(1, 1, 4, 4))
        model(torch.zeros(1, 1, 4, 4))


def test_in_place_changes_after_the_tap():
    class InPlace(Toy):
        def forward(self, x):
            return self.second(self.first(x).relu_())

    model = InPlace()
    with torch.no_grad(), FeatureTaps(model, ["first"]) as taps:
        model(torch.zeros(1, 1, 4, 4))
    with pytest.raises(TapError, match="overwrites the output of 'first' in place"):
        taps["first"]


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2"])
def test_tap_shapes(backbone: str):
    model = build_segmentor(backbone=backbone, num_classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = tap_shapes(model, ["backbone.res5", "sem_seg_head.predictor"], size=(65, 97))
    channels = {"resnet18": 512, "mobilenetv2": 320}[backbone]
    assert shapes == {
        "backbone.res5": TapShape(channels, 9, 13),
        "sem_seg_head.predictor": TapShape(5, 9, 13, corners=True),
    }
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)
