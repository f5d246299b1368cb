"""The contrast of some patches in plain PyTorch: runs everywhere."""

from __future__ import annotations

import torch


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
    distances = torch.cdist(student, teacher, p=order, compute_mode="donot_use_mm_for_euclid_dist")
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
    # What autograd calls for torch.cdist.
    return total, torch.ops.aten._cdist_backward(weights, student, teacher, order, distances)
