"""What the losses keep for the backward pass, beside the plain formulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afdcd.benchmark.plain import PlainAfDCDLoss
from afdcd.losses import AfDCDLoss

CHANNELS, SIZE = 32, (16, 32)


def kept_bytes(loss: nn.Module, call) -> int:
    """Of the tensors that autograd saves, weights and inputs aside, each storage once."""
    known = {p.untyped_storage().data_ptr() for p in loss.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in known:
            kept[pointer] = tensor  # keeps it alive, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = sum(call().values())
    assert total.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def maps(channels: int = CHANNELS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, c, *SIZE, generator=generator) for c in (channels, CHANNELS))
    mask = (torch.rand(2, 1, *SIZE, generator=generator) > 0.75).float()
    return student.requires_grad_(), teacher, mask


@pytest.mark.parametrize("pool", [0, 2, 4])
@pytest.mark.parametrize("channels", [8, CHANNELS])
@pytest.mark.parametrize("hidden", [0.75, 0.4])
def test_never_more_than_the_plain_formulation(pool: int, channels: int, hidden: float):
    loss = AfDCDLoss(channels, CHANNELS, pool=pool, groups=8)
    plain = PlainAfDCDLoss(loss.align, loss.projector, pool=pool, groups=8)
    student, teacher, mask = maps(channels)
    mask = (torch.rand_like(mask) > hidden).float()
    ours = kept_bytes(loss, lambda: loss(student, teacher, mask=mask))
    theirs = kept_bytes(loss, lambda: plain(student, teacher, mask))
    assert ours <= theirs, (ours, theirs)
