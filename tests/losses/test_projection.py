"""The paths of the projection: which is chosen, and that it doesn't show."""

from __future__ import annotations

import pytest
import torch

from afdcd.losses import AfDCDLoss, LossContext
from afdcd.losses.afdcd import projection as projection_module
from afdcd.losses.afdcd.kernels.masked_conv import masked_conv3x3
from afdcd.losses.afdcd.reconstruction import masked_projection


def test_auto_follows_the_kept_share(monkeypatch):
    calls = []

    def spy(*args, **options):
        calls.append(len(args[0]))
        return masked_conv3x3(*args, **options)

    monkeypatch.setattr(projection_module, "masked_conv3x3", spy)
    loss = AfDCDLoss(4, 16, groups=4, pool=0)
    student, teacher = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    for columns, expected in ((1, [8]), (4, [8, 32]), (5, [8, 32]), (8, [8, 32])):
        mask[..., :columns] = 1
        loss(student, teacher, mask=mask)
        assert calls == expected, "at most half of the positions"


@pytest.mark.parametrize("projector", ["plain", "enhanced"])
@pytest.mark.parametrize("channels", [6, 16])  # 16: no align convolution
def test_forced_paths_agree(projector: str, channels: int):
    torch.manual_seed(0)
    loss = AfDCDLoss(channels, 16, groups=4, pool=0, projector=projector).double()
    student = torch.randn(2, channels, 8, 12, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(2, 1, 8, 12) > 0.75).double()
    upstream = torch.randn(2, 16, 8, 12, dtype=torch.float64)
    leaves = [student, *loss.parameters()]
    expected = masked_projection(student, align=loss.align, mask=mask, projector=loss.projector)
    gradients = torch.autograd.grad(expected, leaves, upstream)
    for masked in ("always", "never"):
        got = projection_module.project(
            student,
            align=loss.align,
            mask=mask,
            projector=loss.projector,
            masked_conv=masked,
        )
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
        for mine, theirs in zip(torch.autograd.grad(got, leaves, upstream), gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_nothing_kept():
    loss = AfDCDLoss(4, 16, groups=4, pool=0)
    terms = loss(torch.randn(1, 4, 8, 8), torch.randn(1, 16, 8, 8), mask=torch.zeros(1, 1, 8, 8))
    sum(terms.values()).backward()
    # The first convolution sees zeros: only what is added afterwards can still learn.
    assert not loss.align.weight.grad.any() and not loss.projector[0].weight.grad.any()
    for late in (loss.projector[0].bias, *loss.projector[2].parameters()):
        assert torch.isfinite(late.grad).all() and late.grad.any()


def test_other_values_than_0_and_1_are_honoured():
    loss = AfDCDLoss(4, 16, groups=4, pool=0)
    student, mask = torch.randn(1, 4, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    got = projection_module.project(
        student, align=loss.align, mask=mask, projector=loss.projector, masked_conv="always"
    )
    torch.testing.assert_close(got, loss.projector(loss.align(student) * mask))


def test_the_state_dict_does_not_depend_on_the_path():
    plain = AfDCDLoss(4, 16, groups=4)
    fast = AfDCDLoss(4, 16, groups=4, masked_conv="always")
    assert list(plain.state_dict()) == list(fast.state_dict())
    fast.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("masked_conv", ["always", "never"])
def test_each_term_may_be_differentiated_by_itself(masked_conv: str):
    """In one graph: what a backward pass needs is still as it was after another."""
    torch.manual_seed(0)
    loss = AfDCDLoss(8, 16, groups=4, pool=0, masked_conv=masked_conv).double()
    student = torch.randn(2, 8, 8, 12, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 16, 8, 12, dtype=torch.float64)
    terms = loss(student, teacher, context=LossContext(torch.Generator().manual_seed(1)))
    leaves = [student, *loss.parameters()]
    parts = [torch.autograd.grad(t, leaves, retain_graph=True) for t in terms.values()]
    whole = torch.autograd.grad(sum(terms.values()), leaves)
    for one, other, total in zip(*parts, whole, strict=True):
        torch.testing.assert_close(one + other, total, rtol=1e-9, atol=1e-9)


def test_refusals():
    message = "masked_conv must be one of auto, always, never; got 'yes'"
    with pytest.raises(ValueError, match=message):
        AfDCDLoss(4, 16, groups=4, masked_conv="yes")
