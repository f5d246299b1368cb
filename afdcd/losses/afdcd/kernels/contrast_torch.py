"""The contrast of some patches in plain PyTorch: runs everywhere."""

from __future__ import annotations

import math

import torch
from torch.autograd.graph import saved_tensors_hooks


def contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    temperature: float,
    order: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `afdcd.losses.afdcd.kernels.contrast.Kernel`."""
    # Autograd computes the distances' gradient in a graph that exists during this call only. The
    # caller's hooks, which may move tensors saved for a backward pass, don't apply to it.
    with torch.set_grad_enabled(gradient), saved_tensors_hooks(_unchanged, _unchanged):
        leaf = student.detach().requires_grad_(gradient)
        graph = torch.cdist(leaf, teacher, p=order, compute_mode="donot_use_mm_for_euclid_dist")
    distances = graph.detach()
    logits = distances * (-1 / temperature)
    logits.masked_fill_(~compared, -torch.inf)
    largest = logits.amax(-1, keepdim=True)
    # Denormal numbers, which processors compute many times slower, would come out below; the
    # largest summand is 1.
    shares = logits.sub_(largest).clamp_(min=lowest_exponent(logits.dtype)).exp_()
    sums = shares.sum(-1, keepdim=True)
    total = (sums.log() + largest).sum() + distances.diagonal(dim1=-2, dim2=-1).sum() / temperature
    if not gradient:
        return total, None
    # d loss / d distance = (identity - softmax) / temperature
    weights = shares.div_(sums * -temperature)
    weights.diagonal(dim1=-2, dim2=-1).add_(1 / temperature)
    (student_gradient,) = torch.autograd.grad(graph, leaf, weights)
    return total, student_gradient


def lowest_exponent(dtype: torch.dtype) -> float:
    """Below it a summand is 0 beside 1, and its exponential a denormal number."""
    return math.log(torch.finfo(dtype).tiny) + 7


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
