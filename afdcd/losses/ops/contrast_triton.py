"""The L1 contrast of some patches in Triton: no distance is ever stored.

A program has a block of a patch's student tokens and goes through the teacher's tokens, block by
block. The first kernel keeps a running maximum and sum (the online logsumexp); the second computes
the distances again and adds up the gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Student tokens, teacher tokens and values of a block, powers of 2. The three together must fit
# the registers: there is no matrix product here, so nothing is gained from larger ones.
STUDENT_BLOCK, TEACHER_BLOCK, VALUE_BLOCK = 16, 16, 32
GRADIENT_TEACHER_BLOCK, GRADIENT_VALUE_BLOCK = 8, 128


@triton.jit
def _distances(
    student, teacher, patch, i, j, L, D, B: tl.constexpr, J: tl.constexpr, V: tl.constexpr
):
    """L1 distances [B, J] of the student's tokens ``i`` and the teacher's ``j``."""
    start = patch.to(tl.int64) * L * D
    far = tl.zeros((B, J), dtype=student.dtype.element_ty)
    for first in range(0, D, V):
        v = first + tl.arange(0, V)
        s = tl.load(
            student + start + i[:, None] * D + v[None, :],
            mask=(i[:, None] < L) & (v[None, :] < D),
            other=0.0,
        )
        t = tl.load(
            teacher + start + j[:, None] * D + v[None, :],
            mask=(j[:, None] < L) & (v[None, :] < D),
            other=0.0,
        )
        far += tl.sum(tl.abs(s[:, None, :] - t[None, :, :]), axis=2)
    return far


@triton.jit
def _forward(
    student,
    teacher,
    compared,
    log_sums,
    positives,
    scale,
    L,
    D,
    B: tl.constexpr,
    J: tl.constexpr,
    V: tl.constexpr,
):
    patch = tl.program_id(0)
    i = tl.program_id(1) * B + tl.arange(0, B)
    # Finite, so that a row whose first block holds nothing to compare gives no inf - inf.
    highest = tl.full((B,), -1e30, dtype=student.dtype.element_ty)
    total = tl.zeros((B,), dtype=student.dtype.element_ty)
    positive = tl.zeros((B,), dtype=student.dtype.element_ty)
    for first in range(0, L, J):
        j = first + tl.arange(0, J)
        far = _distances(student, teacher, patch, i, j, L, D, B, J, V)
        there = (i[:, None] < L) & (j[None, :] < L)
        use = tl.load(compared + i[:, None] * L + j[None, :], mask=there, other=0) != 0
        logits = tl.where(use, -far * scale, -float("inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        total = total * tl.exp(highest - higher)
        total += tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        highest = higher
        positive += tl.sum(tl.where(i[:, None] == j[None, :], far, 0.0), axis=1)
    at = patch * L + i
    tl.store(log_sums + at, highest + tl.log(total), mask=i < L)
    tl.store(positives + at, positive, mask=i < L)


@triton.jit
def _gradient(
    student,
    teacher,
    compared,
    log_sums,
    gradient,
    scale,
    L,
    D,
    B: tl.constexpr,
    J: tl.constexpr,
    V: tl.constexpr,
    G: tl.constexpr,
):
    patch = tl.program_id(0)
    i = tl.program_id(1) * B + tl.arange(0, B)
    v = tl.program_id(2) * G + tl.arange(0, G)
    start = patch.to(tl.int64) * L * D
    log_sum = tl.load(log_sums + patch * L + i, mask=i < L, other=0.0)
    mine = (i[:, None] < L) & (v[None, :] < D)
    s = tl.load(student + start + i[:, None] * D + v[None, :], mask=mine, other=0.0)
    result = tl.zeros((B, G), dtype=student.dtype.element_ty)
    for first in range(0, L, J):
        j = first + tl.arange(0, J)
        far = _distances(student, teacher, patch, i, j, L, D, B, J, V)
        there = (i[:, None] < L) & (j[None, :] < L)
        use = tl.load(compared + i[:, None] * L + j[None, :], mask=there, other=0) != 0
        softmax = tl.where(use, tl.exp(-far * scale - log_sum[:, None]), 0.0)
        weights = (tl.where(i[:, None] == j[None, :], 1.0, 0.0) - softmax) * scale
        t = tl.load(
            teacher + start + j[:, None] * D + v[None, :],
            mask=(j[:, None] < L) & (v[None, :] < D),
            other=0.0,
        )
        difference = s[:, None, :] - t[None, :, :]
        sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
        part = tl.where(there, weights, 0.0)[:, :, None] * sign
        result += tl.sum(part, axis=1).to(result.dtype)
    tl.store(gradient + start + i[:, None] * D + v[None, :], result, mask=mine)


def contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    temperature: float,
    order: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `afdcd.losses.ops.contrast.Kernel`. L1 only, contiguous tokens."""
    del order
    patches, length, width = student.shape
    log_sums = student.new_empty(patches, length)
    positives = torch.empty_like(log_sums)
    mask = compared.to(torch.int8)
    blocks = triton.cdiv(length, STUDENT_BLOCK)
    sizes = {"B": STUDENT_BLOCK, "V": VALUE_BLOCK}
    scale = 1 / temperature
    with torch.cuda.device_of(student):
        _forward[(patches, blocks)](
            student,
            teacher,
            mask,
            log_sums,
            positives,
            scale,
            length,
            width,
            J=TEACHER_BLOCK,
            **sizes,
        )
        total = log_sums.sum() + positives.sum() / temperature
        if not gradient:
            return total, None
        result = torch.empty_like(student)
        values = min(GRADIENT_VALUE_BLOCK, triton.next_power_of_2(width))
        _gradient[(patches, blocks, triton.cdiv(width, values))](
            student,
            teacher,
            mask,
            log_sums,
            result,
            scale,
            length,
            width,
            J=GRADIENT_TEACHER_BLOCK,
            G=values,
            **sizes,
        )
    return total, result
