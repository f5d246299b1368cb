"""The masked and the Winograd convolution against a naive loop, PyTorch's, and gradcheck."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels import winograd
from afdcd.losses.afdcd.kernels.direct_conv import direct_conv3x3
from afdcd.losses.afdcd.kernels.masked_conv import masked_conv3x3
from afdcd.losses.afdcd.kernels.winograd import winograd_conv3x3


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


def masked(x, mask, weight, bias, padding=1):
    places = mask.flatten().nonzero()[:, 0]
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[places]
    size = (x.shape[0], *x.shape[2:])
    return masked_conv3x3(rows, places, weight, bias, size=size, padding=padding)


def by_winograd(x, mask, weight, bias, padding=1):
    return winograd_conv3x3(x, weight, bias, padding=padding)


def directly(x, mask, weight, bias, padding=1):
    return direct_conv3x3(x, weight, bias, padding=padding)


PATHS = {"masked": masked, "winograd": by_winograd, "direct": directly}


@pytest.mark.parametrize("path", PATHS)
def test_against_naive_loop(path: str):
    x, mask, weight, bias = case((2, 3, 5, 6), 4)
    torch.testing.assert_close(
        PATHS[path](x, mask, weight, bias), naive_conv(x, weight, bias), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("path", PATHS)
@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 5),
    kept=st.sampled_from([0.0, 0.3, 1.0]),
    padding=st.sampled_from([0, 1]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients(
    path, batch, height, width, channels, outputs, kept, padding, channels_last, seed
):
    height, width = height + 2 * (1 - padding), width + 2 * (1 - padding)
    x, mask, weight, bias = case((batch, channels, height, width), outputs, seed, kept)
    if channels_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    expected = F.conv2d(x * mask, weight, bias, padding=padding)
    got = PATHS[path](x * mask, mask, weight, bias, padding)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed)).double()
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("path", PATHS)
def test_gradcheck(path: str):
    x, mask, weight, bias = case((1, 2, 4, 5), 2, kept=0.6)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, w, b: PATHS[path](x, mask, w, b), leaves)


def test_winograd_in_chunks(monkeypatch):
    """Images and channels that need several rounds."""
    x, mask, weight, bias = case((3, 2, 9, 6), 5)
    weight.requires_grad_()
    (whole,) = torch.autograd.grad(by_winograd(x, mask, weight, bias).square().sum(), weight)
    monkeypatch.setattr(winograd, "CHANNEL_CHUNK", 2)
    monkeypatch.setattr(winograd, "TILE_CHUNK", 7)
    got = by_winograd(x, mask, weight, bias)
    torch.testing.assert_close(got, F.conv2d(x, weight, bias, padding=1), rtol=1e-9, atol=1e-11)
    (chunked,) = torch.autograd.grad(got.square().sum(), weight)
    torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-11)


def test_winograd_float32_error():
    """The stated bound, of the largest output, at a real width."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 512, 16, 16, generator=generator).relu()
    weight = torch.randn(64, 512, 3, 3, generator=generator) * (2 / (9 * 512)) ** 0.5
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    got = winograd_conv3x3(x, weight, torch.zeros(64))
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


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
