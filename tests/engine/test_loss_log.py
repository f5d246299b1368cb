"""Losses are kept until they are read, and one that isn't finite is named."""

from __future__ import annotations

import pytest
import torch

from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.loss_log import LossLog, mean_losses


def test_losses_are_kept_until_read():
    log = LossLog(lambda: None)
    for number in (1.0, 2.0):
        log.note(int(number), {"loss_a": torch.tensor(number), "loss_b": torch.tensor(3.0)})
    steps = log.read()
    assert [step.iteration for step in steps] == [1, 2]
    assert steps[1].values == {"loss_a": 2.0, "loss_b": 3.0, "total_loss": 5.0}
    assert mean_losses(steps) == {"loss_a": 1.5, "loss_b": 3.0, "total_loss": 4.5}
    assert log.read() == []


def test_a_loss_that_is_not_finite_is_named_with_its_iteration(tmp_path):
    log = LossLog(lambda: tmp_path / "model_0000002.pth")
    log.note(6, {"loss_a": torch.tensor(1.0)})
    message = r"^loss_a is not finite at iteration 7 \(loss_a = nan.*model_0000002.pth is from"
    with pytest.raises(NonFiniteLoss, match=message):
        log.note(7, {"loss_a": torch.tensor(float("nan"))})


def test_on_another_device_reading_finds_it(monkeypatch):
    log = LossLog(lambda: None)
    values = torch.tensor([1.0, float("inf"), float("inf")])
    log._pending = [(4, ["loss_a", "loss_b", "total_loss"], values)]
    with pytest.raises(NonFiniteLoss, match="loss_b is not finite at iteration 4"):
        log.read()
