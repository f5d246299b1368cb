"""The L1 contrast of some patches as broadcasts that torch.compile fuses.

Uncompiled it would need [P, L, L, D] values; compiled, none of them is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from afdcd.losses.afdcd.kernels import contrast_torch

logger = logging.getLogger(__name__)


def distances(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L1 distances [P, L, L] of tokens [P, L, D]."""
    return (student[:, :, None] - teacher[:, None]).abs().sum(-1)


def distances_adjoint(
    weights: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor
) -> torch.Tensor:
    """Gradient [P, L, D] of the distances with respect to the student, weighted by [P, L, L]."""
    return (weights[..., None] * torch.sign(student[:, :, None] - teacher[:, None])).sum(2)


def share(
    student: torch.Tensor, teacher: torch.Tensor, bias: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over the tokens, and its gradient with respect to the student's."""
    pair_distances = distances(student, teacher)
    logits = bias - pair_distances / temperature
    log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
    total = log_sum.sum() + pair_distances.diagonal(dim1=-2, dim2=-1).sum() / temperature
    identity = torch.eye(bias.shape[0], dtype=student.dtype, device=student.device)
    weights = (identity - (logits - log_sum).exp()) / temperature
    return total, distances_adjoint(weights, student, teacher)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(share)


_broken = False


def contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    temperature: float,
    order: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `afdcd.losses.afdcd.kernels.contrast.Kernel`. L1 only.

    Falls back to `contrast_torch`, with one warning, where torch.compile doesn't work (for want of
    a C++ compiler, for example).
    """
    global _broken
    if not _broken:
        bias = torch.zeros(compared.shape, dtype=student.dtype, device=student.device)
        bias.masked_fill_(~compared, -torch.inf)
        try:
            total, student_gradient = _compiled()(student, teacher, bias, temperature)
        except Exception as error:  # a compiler may raise anything
            _broken = True
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning("torch.compile doesn't work here (%s): continuing without it", reason[0])
        else:
            return total, student_gradient if gradient else None
    return contrast_torch.contrast(
        student, teacher, compared, temperature=temperature, order=order, gradient=gradient
    )
