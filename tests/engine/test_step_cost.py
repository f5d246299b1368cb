"""What a step costs in times the student's own: by a clock that the test winds, and no traces."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from afdcd.config import embedded_config
from afdcd.distill import Distiller, build_distiller
from afdcd.engine import step_cost
from afdcd.engine.step_cost import COMPARED, SETTLING, StepCost, describe_cost
from afdcd.models import build_segmentor

from helpers.loss_settings import SMALL, give_losses

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Distiller:
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, logit_kd={}, afdcd=SMALL)
    options = {"num_classes": 3, "hidden_channels": 8}
    student = build_segmentor(backbone="mobilenetv2", width_mult=0.25, **options)
    teacher = build_segmentor("pspnet", "resnet18", aux_weight=0, **options)
    return build_distiller(cfg, student, teacher).train()


class Clock:
    """A clock that only the passes advance: by these seconds, pass by pass."""

    def __init__(self, monkeypatch, model: nn.Module, *, steps: list[float], own: list[float]):
        self.now, self.model = 0.0, model
        self.steps, self.own = iter(steps), iter(own)
        self.seen: list[nn.Module] = []
        monkeypatch.setattr(step_cost.time, "perf_counter", lambda: self.now)

    def passes(self, model: nn.Module, batch: list) -> None:
        self.seen.append(model)
        self.now += next(self.steps if model is self.model else self.own)


def drive(cost: StepCost, clock: Clock, count: int) -> list[float | None]:
    said = []
    for _ in range(count):
        with cost.step():
            clock.passes(clock.model, [])
        clock.now += 100  # the update's, which is no part of it
        said.append(cost.after_step([]))
    return said


def test_the_median_of_the_ratios_without_the_first(monkeypatch, model):
    before = [50.0] * SETTLING
    # By step 40 / 1 (not counted), 6 / 3, 8 / 2 and 9 / 3: of 2, 4 and 3 the median is 3.
    clock = Clock(monkeypatch, model, steps=[*before, 40, 6, 8, 9, 7, 7], own=[1.0, 3.0, 2.0, 3.0])
    said = drive(StepCost(model, CPU, clock.passes), clock, SETTLING + 6)
    assert COMPARED == 3 and said == [None] * (SETTLING + 3) + [3.0, None, None]
    assert clock.seen.count(model.student) == 4
    assert describe_cost(3.0).endswith("take 3.00 times as long as the student's own")


def test_of_a_student_alone_nothing_is_measured(monkeypatch, model):
    clock = Clock(monkeypatch, model.student, steps=[1.0] * 30, own=[])
    assert drive(StepCost(model.student, CPU, clock.passes), clock, 30) == [None] * 30


def test_switched_off(monkeypatch, model):
    clock = Clock(monkeypatch, model, steps=[1.0] * 30, own=[])
    cost = StepCost(model, CPU, clock.passes)
    cost.enabled = False
    assert drive(cost, clock, 30) == [None] * 30


def test_passes_of_the_student_leave_no_trace(model):
    """BatchNorm's statistics, the random state and other modules' gradients stay."""
    generator = torch.Generator().manual_seed(0)
    batch = [
        {
            "image": 255 * torch.rand(3, 64, 64, generator=generator),
            "sem_seg": torch.randint(0, 3, (64, 64), generator=generator),
        }
        for _ in range(2)
    ]
    sum(model(batch).values()).backward()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with step_cost.unchanged(model.student, CPU):
        assert all(p.grad is None for p in model.student.parameters())
        sum(model.student(batch).values()).backward()
        torch.rand(1)
        changed = [k for k, v in model.state_dict().items() if not same(v, before[k])]
        assert any("running_var" in name for name in changed)
    assert all(same(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.student.parameters())
    assert all(p.grad is not None for p in model.distiller.parameters())


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def test_what_fails_leaves_no_trace_either(model):
    before = copy.deepcopy(model.student.state_dict())
    with pytest.raises(MemoryError), step_cost.unchanged(model.student, CPU):
        for buffer in model.student.buffers():
            buffer.zero_()
        raise MemoryError
    assert all(torch.equal(v, before[k]) for k, v in model.student.state_dict().items())
