"""The L1 contrast of some patches in Triton: no distance is ever stored.

A program takes a block of a patch's student tokens, one per thread, and passes once over the
teacher's tokens, block by block: it keeps a running maximum and sum (the online logsumexp) and,
scaled by the same maximum, the running gradient. A thread holds the distances of its token to the
whole block in registers, so that nothing is exchanged between threads: a subtraction and an
addition for each value of a pair, and one load for many of them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# The most student tokens of a program (a warp is the least), and the teacher tokens of a block:
# powers of 2.
MAX_TOKENS, WARP = 128, 32
TEACHER_BLOCK = 32


@triton.jit
def _load(pointers, inside, EVEN: tl.constexpr):
    """The values at ``pointers``, 0 where not ``inside``; EVEN means that all are inside."""
    return tl.load(pointers) if EVEN else tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def _side(difference):
    """1 where positive, 0 where negative, 1/2 where 0: (sign + 1) / 2, in one instruction.

    Inexact for differences below 1e-30, which float32 values near 1 can't have.
    """
    return tl.clamp(difference * 1e30 + 0.5, 0.0, 1.0)


@triton.jit
def _contrast(
    student,
    teacher,
    kinds,
    losses,
    gradient,
    L,
    D,
    SCALE: tl.constexpr,
    B: tl.constexpr,
    J: tl.constexpr,
    EVEN: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """Tokens are [P, D, L]; those of different ``kinds`` [L] are compared, and each with itself.

    SCALE is 1 / temperature: a constant, since Triton rounds numbers in arguments to float32.
    Loads are one-dimensional: loading a matrix of pairs would impose its own layout on the rest.
    """
    patch = tl.program_id(0)
    i = tl.program_id(1) * B + tl.arange(0, B)
    valid = i < L
    kind = tl.load(kinds + i, mask=valid, other=-1)
    start = patch.to(tl.int64) * L * D
    student_values = student + start + i
    # Finite, so that a token whose first block holds nothing to compare doesn't give inf - inf.
    highest = tl.full((B,), -1e30, dtype=student.dtype.element_ty)
    total = tl.zeros((B,), dtype=student.dtype.element_ty)
    positive = tl.zeros((B,), dtype=student.dtype.element_ty)
    for first in range(0, L, J):
        j = first + tl.arange(0, J)
        teacher_values = teacher + start + j
        distance = tl.zeros((J, B), dtype=student.dtype.element_ty)
        for v in range(0, D):
            s = _load(student_values + v * L, valid, EVEN)
            t = _load(teacher_values + v * L, j < L, EVEN)
            distance += tl.abs(s[None, :] - t[:, None])
        same = j[:, None] == i[None, :]
        teacher_kind = tl.load(kinds + j, mask=j < L, other=-1)
        use = ((teacher_kind[:, None] != kind[None, :]) | same) & (j[:, None] < L)
        logits = tl.where(use, -distance * SCALE, -float("inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=0))
        shrink = tl.exp(highest - higher)
        shares = tl.exp(logits - higher[None, :])
        total = total * shrink + tl.sum(shares, axis=0)
        highest = higher
        positive += tl.sum(tl.where(same, distance, 0.0), axis=0)
        if GRADIENT:
            # Sums of shares * side; those of shares * sign follow, as sign = 2 * side - 1.
            for v in range(0, D):
                s = _load(student_values + v * L, valid, EVEN)
                t = _load(teacher_values + v * L, j < L, EVEN)
                part = tl.sum(shares * _side(s[None, :] - t[:, None]), axis=0)
                target = gradient + start + v * L + i
                before = tl.load(target, mask=valid & (first > 0), other=0.0)
                tl.store(target, before * shrink + part, mask=valid)
            tl.debug_barrier()  # the next iteration reads what a thread has written
    tl.store(losses + patch * L + i, highest + tl.log(total) + positive * SCALE, mask=valid)
    if GRADIENT:
        for v in range(0, D):
            s = _load(student_values + v * L, valid, EVEN)
            t = _load(teacher + start + v * L + i, valid, EVEN)
            target = gradient + start + v * L + i
            expected = _load(target, valid, EVEN) / total
            value = 2 * (_side(s - t) - expected) * SCALE
            tl.store(target, value.to(gradient.dtype.element_ty), mask=valid)


def _kinds(compared: torch.Tensor) -> torch.Tensor:
    """For each token the first one that it isn't compared with, or itself: int32 [L].

    Equal for tokens that aren't compared with each other.
    """
    itself = torch.eye(len(compared), dtype=torch.bool, device=compared.device)
    return (~compared | itself).int().argmax(1).int()


def contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    *,
    temperature: float,
    order: float,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `Kernel` of `contrast`. L1 only; ``compared`` is False within classes only.

    Makes no copy where the tokens [P, L, D] lie in memory as [P, D, L], as the gradient does.
    """
    del order
    student, teacher = student.mT.contiguous(), teacher.mT.contiguous()
    patches, width, length = student.shape
    losses = student.new_empty(patches, length)
    result = torch.empty_like(student) if gradient else losses
    block = min(TEACHER_BLOCK, triton.next_power_of_2(length))
    tokens = min(MAX_TOKENS, max(WARP, triton.next_power_of_2(length)))
    with torch.cuda.device_of(student):
        _contrast[(patches, triton.cdiv(length, tokens))](
            student,
            teacher,
            _kinds(compared),
            losses,
            result,
            length,
            width,
            SCALE=1 / temperature,
            B=tokens,
            J=block,
            EVEN=length % tokens == 0 and length % block == 0,
            GRADIENT=gradient,
            num_warps=tokens // WARP,
        )
    return losses.sum(), result.mT if gradient else None
