"""The paths of the projection: which is chosen, and that it doesn't show."""

from __future__ import annotations

import pytest
import torch

from afdcd.losses import AfDCDLoss
from afdcd.losses.afdcd import projection as projection_module
from afdcd.losses.afdcd.projection import ProjectionPaths
from afdcd.losses.afdcd.reconstruction import masked_projection


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """The names of the fast convolutions that ran."""
    names: list[str] = []
    for name in ("masked_conv3x3", "winograd_conv3x3"):
        function = getattr(projection_module, name)

        def spy(*args, _name=name, _function=function, **options):
            names.append(_name)
            return _function(*args, **options)

        monkeypatch.setattr(projection_module, name, spy)
    return names


def test_auto_follows_the_kept_share_and_the_size(called, monkeypatch):
    loss = AfDCDLoss(4, 16, groups=4, pool=0)
    student, teacher = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 8, 8)
    few, most = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    few[..., 0] = 1
    loss(student, teacher, mask=few)
    assert called == ["masked_conv3x3"]
    loss(student, teacher, mask=most)
    assert called == ["masked_conv3x3"]
    monkeypatch.setattr(projection_module, "WINOGRAD_LEAST_CHANNELS", 16)
    monkeypatch.setattr(projection_module, "WINOGRAD_LEAST_POSITIONS", 64)
    loss(student, teacher, mask=most)
    assert called == ["masked_conv3x3", "winograd_conv3x3", "winograd_conv3x3"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(student, teacher, mask=most)
    assert len(called) == 3


@pytest.mark.parametrize("projector", ["plain", "enhanced"])
@pytest.mark.parametrize("channels", [6, 16])  # 16: no align convolution
@pytest.mark.parametrize("recompute", [False, True])
def test_forced_paths_agree(projector: str, channels: int, recompute: bool):
    torch.manual_seed(0)
    loss = AfDCDLoss(channels, 16, groups=4, pool=0, projector=projector).double()
    student = torch.randn(2, channels, 8, 12, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(2, 1, 8, 12) > 0.75).double()
    upstream = torch.randn(2, 16, 8, 12, dtype=torch.float64)
    leaves = [student, *loss.parameters()]
    expected = masked_projection(student, align=loss.align, mask=mask, projector=loss.projector)
    gradients = torch.autograd.grad(expected, leaves, upstream)
    for masked in ("always", "never"):
        for winograd in ("always", "never"):
            got = projection_module.project(
                student,
                align=loss.align,
                mask=mask,
                projector=loss.projector,
                paths=ProjectionPaths(masked=masked, winograd=winograd, recompute=recompute),
            )
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
            for mine, theirs in zip(
                torch.autograd.grad(got, leaves, upstream), gradients, strict=True
            ):
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
    loss = AfDCDLoss(4, 16, groups=4, pool=0, paths=ProjectionPaths(masked="always"))
    student, mask = torch.randn(1, 4, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    got = projection_module.project(
        student, align=loss.align, mask=mask, projector=loss.projector, paths=loss.paths
    )
    torch.testing.assert_close(got, loss.projector(loss.align(student) * mask))


def test_recomputing_keeps_less():
    def kept(recompute: bool) -> int:
        loss = AfDCDLoss(
            16, 16, groups=4, pool=0, paths=ProjectionPaths("never", "never", recompute)
        )
        sizes = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel() if tensor.dim() == 4 and len(tensor) == 3 else 0)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            projection_module.project(
                torch.randn(3, 16, 8, 8, requires_grad=True),
                align=loss.align,
                mask=torch.ones(3, 1, 8, 8),
                projector=loss.projector,
                paths=loss.paths,
            )
        return sum(sizes)

    assert kept(True) < kept(False) / 2


def test_the_state_dict_does_not_depend_on_the_path():
    plain, fast = AfDCDLoss(4, 16, groups=4), AfDCDLoss(4, 16, groups=4)
    fast.paths = ProjectionPaths("always", "always", True)
    assert list(plain.state_dict()) == list(fast.state_dict())
    fast.load_state_dict(plain.state_dict())


def test_refusals():
    with pytest.raises(ValueError, match="masked must be one of auto, always, never; got 'yes'"):
        ProjectionPaths(masked="yes")
