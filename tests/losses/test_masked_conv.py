"""The masked convolution against a naive loop, PyTorch's, and gradcheck."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels.masked_conv import masked_conv3x3


def naive_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The definition, one output at a time; padding 1."""
    n, _, height, width = x.shape
    out = torch.zeros(n, len(weight), height, width, dtype=x.dtype)
    for image in range(n):
        for y in range(height):
            for c in range(width):
                for o in range(len(weight)):
                    total = bias[o].item()
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < height and 0 <= c + dx < width:
                                kernel = weight[o, :, dy + 1, dx + 1]
                                total += (x[image, :, y + dy, c + dx] * kernel).sum().item()
                    out[image, o, y, c] = total
    return out


def case(
    shape: tuple[int, int, int, int], outputs: int, seed: int = 0, kept: float = 0.3
) -> list[torch.Tensor]:
    """A masked map [N, C, H, W], its mask, weight and bias, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    mask = (torch.rand(shape[0], 1, *shape[2:], generator=generator) < kept).double()
    return [normal(*shape) * mask, mask, normal(outputs, shape[1], 3, 3), normal(outputs)]


def masked(x, mask, weight, bias):
    places = mask.flatten().nonzero()[:, 0]
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[places]
    size = (x.shape[0], *x.shape[2:])
    return masked_conv3x3(rows, places, weight, bias, size=size)


def test_against_naive_loop():
    x, mask, weight, bias = case((2, 3, 5, 6), 4)
    torch.testing.assert_close(
        masked(x, mask, weight, bias), naive_conv(x, weight, bias), rtol=1e-11, atol=1e-11
    )


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 5),
    kept=st.sampled_from([0.0, 0.3, 1.0]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients(batch, height, width, channels, outputs, kept, channels_last, seed):
    x, mask, weight, bias = case((batch, channels, height, width), outputs, seed, kept)
    if channels_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    expected = F.conv2d(x * mask, weight, bias, padding=1)
    got = masked(x * mask, mask, weight, bias)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed)).double()
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_gradcheck():
    x, mask, weight, bias = case((1, 2, 4, 5), 2, kept=0.6)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, w, b: masked(x, mask, w, b), leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masked_conv_follows_autocast(dtype: torch.dtype):
    x, mask, weight, bias = (t.float() for t in case((2, 16, 8, 8), 8))
    weight.requires_grad_()
    expected = F.conv2d(x, weight, bias, padding=1)
    with torch.autocast("cpu", dtype=dtype):
        got = masked(x, mask, weight, bias)
    assert got.dtype == dtype
    error = (got.float() - expected).norm() / expected.norm()
    assert error < (2e-3 if dtype == torch.float16 else 1e-2)
    (gradient,) = torch.autograd.grad(got.float().sum(), weight)
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize("frozen", ["rows", "weight", "bias"])
def test_what_needs_no_gradient_gets_none(frozen: str):
    """And the others get the same as where all are wanted."""
    x, mask, weight, bias = case((1, 3, 4, 5), 2)
    places = mask.flatten().nonzero()[:, 0]
    rows = x.permute(0, 2, 3, 1).reshape(-1, 3)[places]
    inputs = {"rows": rows, "weight": weight, "bias": bias}

    def gradients(wanted: list[str]) -> dict[str, torch.Tensor | None]:
        leaves = {n: t.clone().requires_grad_(n in wanted) for n, t in inputs.items()}
        masked_conv3x3(**leaves, places=places, size=(1, 4, 5)).square().sum().backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    every = gradients(list(inputs))
    some = gradients([name for name in inputs if name != frozen])
    assert some.pop(frozen) is None
    for name, gradient in some.items():
        assert torch.equal(gradient, every[name]), name
