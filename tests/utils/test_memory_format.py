"""Tensors and modules in the memory format of their device."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode

from afdcd.utils.memory_format import format_module, in_device_format


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    order=st.permutations(range(4)),
    seed=st.integers(0, 1000),
)
def test_on_a_cpu_strides_are_contiguous_to_the_letter(shape, order, seed):
    # A tensor whose dimensions lie in memory in any order.
    back = [order.index(axis) for axis in range(4)]
    stored = torch.randn(
        [shape[axis] for axis in order], generator=torch.Generator().manual_seed(seed)
    )
    tensor = stored.permute(back)
    found = in_device_format(tensor)
    assert tuple(tensor.shape) == shape
    assert found.stride() == contiguous_strides(shape)
    assert torch.equal(found, tensor)
    assert in_device_format(found) is found


def test_other_numbers_of_dimensions_are_left_alone():
    for tensor in (torch.randn(3, 4).t(), torch.randn(2, 3, 4, 5, 6).transpose(1, 4)):
        assert in_device_format(tensor) is tensor


def test_on_a_gpu_channels_lie_last():
    # Tensors without values, so that no GPU is needed.
    with FakeTensorMode():
        tensor = torch.empty(2, 3, 4, 5, device="cuda")
        assert in_device_format(tensor).stride() == (60, 1, 15, 3)


def test_a_module_that_was_in_channels_last():
    conv = nn.Conv2d(4, 8, 1).to(memory_format=torch.channels_last)
    weight, values = conv.weight, conv.weight.detach().clone()
    # A 1x1 weight counts as contiguous in both formats, but PyTorch computes by its strides.
    assert weight.is_contiguous() and weight.stride() != (4, 1, 1, 1)
    assert format_module(conv) is conv
    assert conv.weight is weight and conv.weight.stride() == (4, 1, 1, 1)
    assert torch.equal(conv.weight, values)
