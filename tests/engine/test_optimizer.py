"""The update against SGD's definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afdcd.config import embedded_config
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer


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
