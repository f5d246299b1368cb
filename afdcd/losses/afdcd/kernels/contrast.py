"""InfoNCE of tokens under an L1 or L2 distance, its gradient computed in the forward pass.

Plain autograd would keep several [P, L, L] matrices and copies of both maps' tokens for the
backward pass. Here each strip of patches in turn is reduced to its share of the loss and of the
student's gradient, and only the gradient, as large as the map, is kept.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypedDict

import torch
from torch.autograd.function import once_differentiable

from afdcd.losses.afdcd.kernels import contrast_compiled, contrast_torch
from afdcd.losses.afdcd.kernels.tokens import patch_tokens, write_tokens
from afdcd.losses.precision import at_least_float32

KERNELS = ("auto", "torch", "compiled", "triton")
# Values of a strip's [P, L, L] matrices on a CPU: large enough to keep the cores busy, small
# enough to stay in the cache. A GPU needs more at once.
STRIP_VALUES = 1 << 20
STRIP_VALUES_GPU = 1 << 26
# "auto": from this many subtractions on, compiling (about ten seconds, once) soon pays off.
COMPILE_THRESHOLD = 1 << 30


class Kernel(Protocol):
    """Computes the share of the loss that some patches contribute.

    Takes tokens [P, L, D] of student and teacher, ``compared`` [L, L] (False between different
    tokens of one kind, True elsewhere), the temperature, the norm's order and whether a gradient is
    needed. Returns the sum over the tokens and its gradient with respect to the student's tokens.
    """

    def __call__(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        compared: torch.Tensor,
        *,
        temperature: float,
        order: float,
        gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


class _TokenLayout(TypedDict):
    groups: int
    patch: tuple[int, int]


class _Settings(NamedTuple):
    groups: int
    patch: tuple[int, int]
    temperature: float
    order: float
    kernel: Kernel
    tokens_last: bool
    gradient: bool


def map_contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    groups: int,
    patch: tuple[int, int],
    temperature: float,
    order: float,
    kernel: str = "auto",
) -> torch.Tensor:
    """Sum over all student tokens of ``-log softmax`` of their positive.

    Computed in float32 at least; the gradient has the student's precision.

    Args:
        student, teacher: maps [N, C, H, W], already pooled; the teacher gets no gradient.
        compared: bool [L, L], which teacher tokens stand in the denominator: the token itself and
            all tokens of other kinds.
        groups, patch: see `patch_tokens`.
        temperature: of the similarities, -distance / temperature.
        order: of the norm: 1 or 2.
        kernel: ``torch`` (runs everywhere), ``compiled`` (torch.compile; for L1, where there is a
            C++ compiler), ``triton`` (for L1, on a GPU) or ``auto``. ``torch`` replaces what can't
            run here (``compiled`` with a warning).

    Returns:
        scalar. It can be differentiated once.

    Raises:
        ValueError: an unknown kernel, or ``triton`` where it isn't installed or there is
            no GPU.
    """
    chosen = choose_kernel(kernel, student, compared, order)
    # In Triton's kernel each thread has a token, and neighbouring threads read neighbouring values.
    tokens_last = chosen not in (contrast_torch.contrast, contrast_compiled.contrast)
    # Determined here: inside a Function's forward pass gradients are always off.
    gradient = torch.is_grad_enabled() and student.requires_grad
    settings = _Settings(groups, patch, temperature, order, chosen, tokens_last, gradient)
    result: torch.Tensor = _MapContrast.apply(student, teacher, compared, settings)
    return result


def check_kernel(kernel: str) -> None:
    """Raise ValueError unless ``kernel`` is one of `KERNELS` that runs here."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}; got {kernel!r}")
    if kernel == "triton" and not _triton_works():
        raise ValueError(
            "kernel 'triton' needs Triton (pip install triton), on Linux, and a GPU that PyTorch "
            "sees: take 'auto', which uses it wherever it runs"
        )


def choose_kernel(
    kernel: str, student: torch.Tensor, compared: torch.Tensor, order: float
) -> Kernel:
    """The function for a kernel's name, as `map_contrast` describes it."""
    check_kernel(kernel)
    if order != 1:
        return contrast_torch.contrast
    if kernel == "auto":
        if student.device.type == "cuda" and _triton_works():
            kernel = "triton"
        elif student.numel() * len(compared) >= COMPILE_THRESHOLD:
            kernel = "compiled"
        else:
            kernel = "torch"
    if kernel == "triton":
        # Imported at use: Triton is optional.
        from afdcd.losses.afdcd.kernels import contrast_triton

        return contrast_triton.contrast
    return contrast_compiled.contrast if kernel == "compiled" else contrast_torch.contrast


def _triton_works() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"


def _strips(
    features: torch.Tensor, length: int, patch: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """Images and rows of each strip."""
    n, _, height, width = features.shape
    rows, cols = height // patch[0], width // patch[1]
    budget = STRIP_VALUES_GPU if features.device.type == "cuda" else STRIP_VALUES
    patches = max(1, budget // length**2)
    rows_each = min(rows, max(1, patches // cols))
    images_each = max(1, patches // (rows * cols)) if rows_each == rows else 1
    for image in range(0, n, images_each):
        for row in range(0, rows, rows_each):
            last = min(rows, row + rows_each)
            yield slice(image, image + images_each), slice(row * patch[0], last * patch[0])


class _MapContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        teacher: torch.Tensor,
        compared: torch.Tensor,
        settings: _Settings,
    ) -> torch.Tensor:
        layout: _TokenLayout = {"groups": settings.groups, "patch": settings.patch}

        def tokens(features: torch.Tensor) -> torch.Tensor:
            result = patch_tokens(features, **layout, tokens_last=settings.tokens_last)
            return at_least_float32(result if settings.tokens_last else result.contiguous())

        # Zero where there is no patch.
        gradient = torch.zeros_like(student) if settings.gradient else None
        total = at_least_float32(student.new_zeros(()))
        for images, rows in _strips(student, len(compared), settings.patch):
            share, share_gradient = settings.kernel(
                tokens(student[images, :, rows]),
                tokens(teacher[images, :, rows]),
                compared,
                temperature=settings.temperature,
                order=settings.order,
                gradient=gradient is not None,
            )
            total += share
            if gradient is not None and share_gradient is not None:
                write_tokens(gradient[images, :, rows], share_gradient, **layout)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # Not in place: a retained graph may be differentiated again.
        return gradient * upstream[0], None, None, None
