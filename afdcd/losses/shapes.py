"""Checks and matching of the shapes of a pair of feature maps."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def check_feature_pair(student: torch.Tensor, teacher: torch.Tensor, where: str) -> None:
    """Raise ValueError unless both are [N, C, H, W] with the same N, C, H and W."""
    if student.dim() != 4 or teacher.dim() != 4:
        raise ValueError(
            f"{where} takes two [N, C, H, W] feature maps; "
            f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.shape != teacher.shape:
        raise ValueError(
            f"{where} takes feature maps of one shape; got student {tuple(student.shape)} and "
            f"teacher {tuple(teacher.shape)}. Align the channels with a 1x1 convolution and "
            "resize with match_size (AfDCDLoss does both)"
        )


def check_same_channels(student: torch.Tensor, teacher: torch.Tensor, where: str) -> None:
    """Raise ValueError unless both are [N, C, *, *] with the same N and C, whatever their sizes."""
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"{where} takes two maps [N, C, H, W] of the same images and channels; got student "
            f"{tuple(student.shape)} and teacher {tuple(teacher.shape)}. Bring the student to the "
            "teacher's channels with a 1x1 convolution, or tap modules whose channels agree"
        )


def match_size(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Resize ``student`` [N, C, h, w] bilinearly to the height and width of ``teacher``.

    Returned as it is when the sizes agree. Pixels are taken as squares
    (``align_corners=False``), as in the rest of the field.
    """
    size = teacher.shape[-2:]
    if student.shape[-2:] == size:
        return student
    return F.interpolate(student, size=size, mode="bilinear", align_corners=False)
