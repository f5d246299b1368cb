"""The update against SGD's definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afdcd.config import embedded_config
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer, set_lr
from afdcd.utils.problems import SettingsError


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_are_those_of_sgd(nesterov: bool):
    """Also where a parameter gets its first gradient later, and in a layout that isn't its own.

    PyTorch's fused update on a CPU takes memory as it lies, and is wrong there.
    """
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Conv2d(2, 2, 3)}).double()
    model["b"].to(memory_format=torch.channels_last)
    cfg = embedded_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.NESTEROV = 0.1, 0.01, nesterov
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    momentum: dict[str, torch.Tensor] = {}
    for step in range(4):
        for name, parameter in model.named_parameters():
            late = step < 2 and name.startswith("b.")
            parameter.grad = None if late else torch.randn(parameter.shape).double()
            if parameter.grad is None:
                continue
            slope = parameter.grad + 0.01 * expected[name]
            momentum[name] = 0.9 * momentum[name] + slope if name in momentum else slope
            update = slope + 0.9 * momentum[name] if nesterov else momentum[name]
            expected[name] = expected[name] - 0.1 * update
        optimizer.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


def test_updates_are_those_of_adamw():
    """Against Loshchilov and Hutter's algorithm 2 (arXiv 1711.05101), a learning rate a group."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(2, 2)}).double()
    cfg = embedded_config()
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = "ADAMW", 0.01, 0.1
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.5
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
    set_lr(optimizer, 0.02)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = ({name: torch.zeros_like(p) for name, p in expected.items()} for _ in range(2))
    for step in range(1, 4):
        for name, parameter in model.named_parameters():
            lr = 0.01 if name.startswith("backbone.") else 0.02
            parameter.grad = slope = torch.randn(parameter.shape).double()
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            expected[name] = (1 - lr * 0.1) * expected[name] - lr * mean / (square.sqrt() + 1e-8)
        optimizer.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


def test_the_backbones_factor_is_the_students_alone():
    torch.manual_seed(0)
    parts = {"backbone": nn.Linear(1, 1), "sem_seg_head": nn.Linear(1, 1)}
    model = nn.ModuleDict({"student": nn.ModuleDict(parts), "distiller": nn.Linear(1, 1)})
    cfg = embedded_config()
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
    factors = {
        name: group["lr_factor"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert {name for name, factor in factors.items() if factor == 0.1} == {
        "student.backbone.weight",
        "student.backbone.bias",
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("OPTIMIZER", "ADAM", "SOLVER.OPTIMIZER must be one of SGD, ADAMW; got 'ADAM'"),
        ("BASE_LR", 0.02, "far above what AdamW can take"),
        ("BACKBONE_MULTIPLIER", 0.0, "SOLVER.BACKBONE_MULTIPLIER must be above 0"),
    ],
)
def test_settings_that_cannot_work(key: str, value: object, message: str):
    cfg = embedded_config()
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER[key] = value
    with pytest.raises(SettingsError, match=message):
        SettingsReader(cfg).optimizer()
