"""Weight gradients computed last: the order, the values, the memory."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from afdcd.benchmark.memory import allocated_peak
from afdcd.losses import AfDCDLoss, LossContext, ProjectionPaths
from afdcd.losses.afdcd.kernels.late import LateGradient

CHANNELS = 16


def build(**options) -> AfDCDLoss:
    torch.manual_seed(0)
    return AfDCDLoss(8, CHANNELS, groups=4, pool=0, **options)


def maps(size: tuple[int, int] = (8, 12)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, c, *size, generator=generator) for c in (8, CHANNELS))
    return student, teacher, (torch.rand(2, 1, *size, generator=generator) > 0.7).float()


@pytest.mark.parametrize("late", [False, True])
def test_order(late: bool):
    """Recorded ahead of the student, they follow its backward pass; else they precede it."""
    loss, order = build(), []
    image, teacher, mask = maps()
    stem = torch.nn.Conv2d(8, 8, 1)
    for name, weight in (("stem", stem.weight), ("projector", loss.projector[0].weight)):
        weight.register_hook(lambda gradient, name=name: order.append(name))
    if late:
        loss.defer_weight_gradients()
    sum(loss(stem(image), teacher, mask=mask).values()).backward()
    assert order == (["stem", "projector"] if late else ["projector", "stem"])
    order.clear()
    sum(loss(stem(image), teacher, mask=mask).values()).backward()
    assert order == ["projector", "stem"], "it is for one call"


@pytest.mark.parametrize("masked", ["always", "never"])
@pytest.mark.parametrize("winograd", ["always", "never"])
@pytest.mark.parametrize("projector", ["plain", "enhanced"])
@pytest.mark.parametrize(("sample", "recompute"), [(1.0, False), (1.0, True), (0.5, False)])
def test_no_value_depends_on_it(
    masked: str, winograd: str, projector: str, sample: float, recompute: bool
):
    paths = ProjectionPaths(masked=masked, winograd=winograd, recompute=recompute)
    loss = build(projector=projector, sample=sample, paths=paths)
    student, teacher, mask = maps()
    student.requires_grad_()
    results = []
    for late in (False, True):
        if late:
            loss.defer_weight_gradients()
        generator = torch.Generator().manual_seed(1)
        terms = loss(student, teacher, mask=mask, context=LossContext(generator))
        leaves = [student, *loss.parameters()]
        results.append((*terms.values(), *torch.autograd.grad(sum(terms.values()), leaves)))
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


def test_each_term_may_be_differentiated_by_itself():
    loss = build()
    student, teacher, mask = maps()
    loss.defer_weight_gradients()
    terms = loss(student, teacher, mask=mask)
    leaves = list(loss.projector.parameters())
    parts = [torch.autograd.grad(t, leaves, retain_graph=True) for t in terms.values()]
    whole = torch.autograd.grad(sum(terms.values()), leaves)
    for one, other, total in zip(*parts, whole, strict=True):
        torch.testing.assert_close(one + other, total)


def test_weights_that_are_frozen_get_none():
    loss = build()
    student, teacher, mask = maps()
    loss.projector.requires_grad_(False)
    loss.defer_weight_gradients()
    sum(loss(student.requires_grad_(), teacher, mask=mask).values()).backward()
    assert student.grad is not None
    assert all(p.grad is None for p in loss.projector.parameters())
    frozen = LateGradient(loss.projector[0].weight)
    assert not frozen.token.requires_grad


def test_peak_of_a_step():
    """The student's activations are gone before the weight gradients come."""
    loss = AfDCDLoss(8, 128, groups=4, pool=0)  # 1.1 MiB of weight gradients
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 128, 8, 8, generator=generator)
    mask = (torch.rand(1, 1, 8, 8, generator=generator) > 0.7).float()
    image = torch.randn(1, 8, 64, 64, generator=generator)
    stem = torch.nn.Sequential(*[torch.nn.Conv2d(8, 8, 1) for _ in range(16)])  # 2 MiB

    def step(late: bool) -> None:
        loss.zero_grad()
        stem.zero_grad()
        if late:
            loss.defer_weight_gradients()
        features = torch.nn.functional.avg_pool2d(stem(image), 8)
        sum(loss(features, teacher, mask=mask).values()).backward()

    step(False)
    loss.zero_grad()
    early, late = (allocated_peak(partial(step, late)) for late in (False, True))
    assert late < 0.8 * early, (late, early)


def test_a_copy_can_be_made_after_a_step():
    loss = build()
    student, teacher, mask = maps()
    loss.defer_weight_gradients()
    loss(student, teacher, mask=mask)
    copy.deepcopy(loss)
