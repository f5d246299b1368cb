"""InfoNCE of tokens under an L1 or L2 distance, its gradient computed in the forward pass.

Plain autograd would keep several [P, L, L] matrices for the backward pass. Here each chunk of
patches is turned into its share of the loss and of the student's gradient at once, and only the
gradient, as large as the tokens, is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

# Values of a chunk's [P, L, L] matrices: large enough to keep the cores busy, small enough to
# stay in the cache.
CHUNK_VALUES = 1 << 20


def token_contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    temperature: float,
    order: float,
) -> torch.Tensor:
    """Sum over all student tokens of ``-log softmax`` of their positive.

    Args:
        student: tokens [P, L, D], float32 or float64.
        teacher: tokens [P, L, D]; gets no gradient.
        compared: bool [L, L], which teacher tokens stand in the denominator; True on the diagonal.
        temperature: of the similarities, -distance / temperature.
        order: of the norm: 1 or 2.

    Returns:
        scalar. It can be differentiated once.
    """
    result: torch.Tensor = _TokenContrast.apply(student, teacher, compared, temperature, order)
    return result


class _TokenContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        teacher: torch.Tensor,
        compared: torch.Tensor,
        temperature: float,
        order: float,
    ) -> torch.Tensor:
        patches, length, _ = student.shape
        bias = torch.zeros(length, length, dtype=student.dtype, device=student.device)
        bias.masked_fill_(~compared, -torch.inf)
        total = student.new_zeros(())
        gradient = torch.empty_like(student) if student.requires_grad else None
        step = max(1, CHUNK_VALUES // length**2)
        for start in range(0, patches, step):
            s = student[start : start + step].contiguous()
            t = teacher[start : start + step].contiguous()
            distances = torch.cdist(s, t, p=order, compute_mode="donot_use_mm_for_euclid_dist")
            logits = torch.add(bias, distances, alpha=-1 / temperature)
            log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
            positives = distances.diagonal(dim1=-2, dim2=-1)
            total += log_sum.sum() + positives.sum() / temperature
            if gradient is not None:
                # d loss / d distance = (identity - softmax) / temperature
                weights = logits.sub_(log_sum).exp_().neg_()
                weights.diagonal(dim1=-2, dim2=-1).add_(1)
                weights.div_(temperature)
                gradient[start : start + step] = torch.ops.aten._cdist_backward(
                    weights, s, t, order, distances
                )
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None, None, None
