"""Logits of two networks on one grid, where each network itself takes them to lie."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.losses.precision import at_least_float32, no_autocast


def corners_on_corners(model: nn.Module) -> bool:
    """Whether a model's head resizes its logits with ``align_corners=True``.

    Heads say so by ``ALIGN_CORNERS``; those that don't are taken to resize as PyTorch does by
    default, as Detectron2's and transformers' do.
    """
    return bool(getattr(getattr(model, "sem_seg_head", None), "ALIGN_CORNERS", False))


def on_one_grid(
    student: torch.Tensor, teacher: torch.Tensor, corners: tuple[bool, bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both networks' logits at the same positions: those of the finer of the two maps.

    A head learns its logits where its own resizing puts them. With ``align_corners=True`` the first
    and the last of n positions are the image's edges, and the others lie between them, 1 / (n - 1)
    of its side apart; without, they are the middles of n equal parts. Maps of 12 and of 24 rows
    that are compared as if both were the one, and are the other, are up to a fiftieth of the image
    apart, and a coarse map can't teach a fine one what lies between its positions.

    Args:
        student: [N, K, h, w].
        teacher: [N, K, H, W] of the same images.
        corners: whether the student's and the teacher's positions are those of
            ``align_corners=True``.

    Returns:
        both as [N, K, max(h, H), max(w, W)], interpolated bilinearly; as they are where their
        positions are the same.
    """
    ours, theirs = student.shape[-2:], teacher.shape[-2:]
    if ours == theirs and corners[0] == corners[1]:
        return student, teacher
    finer = corners[1] if theirs[0] * theirs[1] > ours[0] * ours[1] else corners[0]
    size = (max(ours[0], theirs[0]), max(ours[1], theirs[1]))
    with no_autocast(student):
        return (
            resampled(at_least_float32(student), size, corners[0], finer),
            resampled(at_least_float32(teacher), size, corners[1], finer),
        )


def resampled(x: torch.Tensor, size: tuple[int, int], was: bool, becomes: bool) -> torch.Tensor:
    """Logits [N, K, h, w] at ``size``, bilinearly, from the one kind of positions to the other.

    Args:
        x: [N, K, h, w].
        size: of the result.
        was, becomes: whether positions are those of ``align_corners=True``, before and after.
    """
    if was == becomes:
        if x.shape[-2:] == size:
            return x
        return F.interpolate(x, size=size, mode="bilinear", align_corners=was)
    rows, columns = (
        _weights(count, wanted, was, becomes, x)
        for count, wanted in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


def _weights(count: int, wanted: int, was: bool, becomes: bool, like: torch.Tensor) -> torch.Tensor:
    """[wanted, count]: what each wanted position takes of the positions that there are."""
    place = torch.arange(wanted, dtype=torch.float64)
    share = place / max(wanted - 1, 1) if becomes else (place + 0.5) / wanted
    index = share * (count - 1) if was else share * count - 0.5
    distance = (index.clamp(0, count - 1)[:, None] - torch.arange(count)).abs()
    return (1 - distance).clamp(min=0).to(like)
