"""Kernels, losses and a step on a device, against float64.

Kernels and losses against float64 on the CPU, a step against float64 on the same device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from afdcd.benchmark.errors import PRECISIONS, precision_errors
from afdcd.benchmark.gpu.rows import Check, Figure, Skipped
from afdcd.benchmark.plain import plain_contrast
from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.sides import build_side, make_batch
from afdcd.benchmark.timing import use_tf32
from afdcd.distill import Distiller
from afdcd.distill.components import ComponentFit, PrincipalComponents
from afdcd.engine.step import to_device
from afdcd.losses import AfDCDLoss, patch_contrast

# Relative errors, in the L2 norm. A gradient has the precision of the map it belongs to.
VALUE_LIMIT = 1e-5
GRADIENT_LIMITS = {"float32": 1e-4, "bfloat16": 1e-2}
# A loss behind convolutions: rounding decides some signs of the contrast's differences.
LOSS_LIMITS = {"value": 1e-5, "gradient": 1e-3}
# TensorFloat-32 has the 10 bits of float16.
TF32_LIMIT = 2e-3
# Of losses and gradients of a whole step of random networks, which amplify rounding: on a CPU the
# gradients are off by 0.006, 0.6 and 0.2. (Trained networks': see docs/performance.md.) One that is
# zero is off by 1.
STEP_LIMITS = {"float32": (1e-3, 0.05), "bfloat16": (0.05, 0.9), "float16": (0.02, 0.5)}


class Maps(NamedTuple):
    """Shape of two feature maps, N x C x H x W, and the channel groups of a contrast of them."""

    shape: tuple[int, int, int, int]
    groups: int = 16

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


def relative_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """``|got - exact| / |exact|`` in the L2 norm, in float64 on the CPU."""
    exact = exact.detach().double().cpu()
    difference = got.detach().double().cpu() - exact
    return float(difference.norm() / exact.norm().clamp(min=1e-300))


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute float32 products in float32; afterwards as before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def contrast_check(maps: Maps, kernel: str, dtype: str, device: str) -> Check:
    """A kernel of the contrast against the published formulation in float64.

    Args:
        maps: without pooling.
        kernel: see `afdcd.losses.patch_contrast`.
        dtype: of both maps.
        device: to measure on.
    """

    def measure() -> dict[str, Figure]:
        if kernel == "triton":
            _needs_triton(device)
        generator = torch.Generator().manual_seed(0)
        # Rounded before they are taken as exact.
        student, teacher = (
            torch.randn(maps.shape, generator=generator).relu().to(getattr(torch, dtype))
            for _ in range(2)
        )
        wide = student.double().requires_grad_()
        exact = plain_contrast(wide, teacher.double(), groups=maps.groups, pool=0)
        exact.backward()
        leaf = student.to(device).requires_grad_()
        value = patch_contrast(leaf, teacher.to(device), groups=maps.groups, pool=0, kernel=kernel)
        value.backward()
        return {
            "value": Figure(relative_error(value, exact), VALUE_LIMIT),
            "gradient": Figure(_error_of_gradients([leaf], [wide]), GRADIENT_LIMITS[dtype]),
        }

    return Check(f"contrast, {kernel}, {dtype}, {maps}", measure)


def _needs_triton(device: str) -> None:
    if importlib.util.find_spec("triton") is None:
        raise Skipped("Triton isn't installed: the kernel 'torch' is used")
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise Skipped("Triton needs a GPU, or TRITON_INTERPRET=1 for its interpreter")


def _error_of_gradients(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """The relative error of all gradients together."""
    return relative_error(_gradients(got), _gradients(exact))


def _gradients(leaves: list[torch.Tensor]) -> torch.Tensor:
    found = [leaf.grad for leaf in leaves if leaf.grad is not None]
    if len(found) != len(leaves):
        raise RuntimeError(f"{len(leaves) - len(found)} of {len(leaves)} gradients are missing")
    return torch.cat([gradient.double().cpu().flatten() for gradient in found])


def masked_conv_check(maps: Maps, masked_conv: str, device: str) -> Check:
    """Af-DCD's loss with and without the masked convolution, in float32, against float64.

    The student's map has half the teacher's channels, so that there is an align convolution.

    Args:
        maps: the teacher's.
        masked_conv: ``always`` or ``never``: see `afdcd.losses.afdcd.projection.project`.
        device: to measure on.
    """

    def measure() -> dict[str, Figure]:
        n, channels, height, width = maps.shape
        torch.manual_seed(0)
        options: dict[str, Any] = {"groups": maps.groups, "pool": 0, "kernel": "torch"}
        loss = AfDCDLoss(channels // 2, channels, masked_conv=masked_conv, **options)
        exact = AfDCDLoss(channels // 2, channels, masked_conv="never", **options).double()
        exact.load_state_dict(loss.state_dict())
        loss.to(device)
        student = torch.randn(n, channels // 2, height, width).relu()
        teacher = torch.randn(maps.shape).relu()
        mask = (torch.rand(n, 1, height, width) > 0.75).float()

        def total(of: AfDCDLoss, leaf: torch.Tensor) -> torch.Tensor:
            terms = of(leaf, teacher.to(leaf), mask.to(leaf.dtype))
            value = sum((of.TERMS[name] * term for name, term in terms.items()), leaf.new_zeros(()))
            value.backward()
            return value

        wide = student.double().requires_grad_()
        expected = total(exact, wide)
        leaf = student.to(device).requires_grad_()
        with without_tf32():
            got = total(loss, leaf)
        error = _error_of_gradients([leaf, *loss.parameters()], [wide, *exact.parameters()])
        return {
            "value": Figure(relative_error(got, expected), LOSS_LIMITS["value"]),
            "gradient": Figure(error, LOSS_LIMITS["gradient"]),
        }

    return Check(f"Af-DCD's loss, masked convolution {masked_conv}, {maps}", measure)


def components_check(maps: Maps, dims: int, device: str) -> Check:
    """A teacher's map on its principal components, against float64; and their fit.

    Args:
        maps: the teacher's.
        dims: number of components.
        device: to measure on.
    """

    def measure() -> dict[str, Figure]:
        channels = maps.shape[1]
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(channels, channels, generator=generator)
        mix *= torch.logspace(0, -2, channels)[:, None]
        normal = torch.randn(maps.shape, generator=generator)
        features = torch.einsum("nchw,cd->ndhw", normal, mix).relu()
        module, exact = (PrincipalComponents(channels, dims) for _ in range(2))
        fit, exact_fit = ComponentFit(), ComponentFit()
        fit.add(features.to(device))
        exact_fit.add(features)
        exact.double().set(exact_fit)
        expected = exact(features.double())
        # The same components, so that the projection alone is compared.
        module.set(exact_fit)
        module.to(device)
        with without_tf32():
            got = module(features.to(device))
        allowed = module(features.to(device))
        kept = fit.components(dims)[2]
        return {
            "fit": Figure(abs(kept / float(exact.kept) - 1), VALUE_LIMIT),
            "projection": Figure(relative_error(got, expected), VALUE_LIMIT),
            "projection, as trained": Figure(
                relative_error(allowed, expected), TF32_LIMIT, "with PyTorch's default TF32"
            ),
        }

    return Check(f"{dims} components, {maps}", measure)


def step_check(setting: Setting, dims: int) -> Check:
    """Losses and gradients of a step in float32, bfloat16 and float16, against float64.

    Args:
        setting: of small networks.
        dims: principal components of the teacher's map; 0 for the map.
    """

    def measure() -> dict[str, Figure]:
        side = build_side(setting, Variant("step", dims=dims))
        model, device = side.model, torch.device(setting.device)
        assert isinstance(model, Distiller)
        batch = [to_device(item, device) for item in make_batch(setting)]
        with without_tf32():
            errors = precision_errors(model, batch)
        found = {}
        for precision in PRECISIONS:
            losses, gradients = STEP_LIMITS[precision]
            for part, start, limit in (
                ("losses", "loss_", losses),
                ("gradients", "gradient", gradients),
            ):
                worst, name = max(
                    (row[precision], name) for name, row in errors.items() if name.startswith(start)
                )
                found[f"{part}, {precision}"] = Figure(worst, limit, f"worst: {name}")
        return found

    return Check(f"step, {dims or 'all'} components", measure)
