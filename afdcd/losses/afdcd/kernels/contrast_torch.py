"""The contrast of some patches in plain PyTorch: runs everywhere."""

from __future__ import annotations

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
    log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
    total = log_sum.sum() + distances.diagonal(dim1=-2, dim2=-1).sum() / temperature
    if not gradient:
        return total, None
    # d loss / d distance = (identity - softmax) / temperature
    weights = logits.sub_(log_sum).exp_().neg_()
    weights.diagonal(dim1=-2, dim2=-1).add_(1)
    weights.div_(temperature)
    (student_gradient,) = torch.autograd.grad(graph, leaf, weights)
    return total, student_gradient


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
