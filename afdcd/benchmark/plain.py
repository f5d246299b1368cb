"""Af-DCD as published and as plain autograd computes it: what everything else is compared with.

The whole teacher runs, with its normalization and auxiliary head unchanged; align and projector are
dense convolutions; the contrast gathers positives and negatives by boolean masks and concatenates
them. Written from the method's description; values are those of `afdcd.losses.AfDCDLoss`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels.tokens import patch_tokens
from afdcd.models import SegmentationHead, SemanticSegmentor


def plain_contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    groups: int = 16,
    patch: tuple[int, int] = (4, 4),
    pool: int = 4,
    temperature: float = 0.07,
) -> torch.Tensor:
    """`patch_contrast` of kind ``omni``, as published: [N, C, H, W] maps to a scalar."""
    if pool > 1:
        student, teacher = F.max_pool2d(student, pool), F.max_pool2d(teacher, pool)
    student_tokens = patch_tokens(student, groups=groups, patch=patch)
    teacher_tokens = patch_tokens(teacher, groups=groups, patch=patch)
    similarity = -torch.cdist(student_tokens, teacher_tokens, p=1) / temperature  # [P, L, L]
    patches, length, _ = similarity.shape
    group = torch.arange(length, device=student.device) % groups
    same = torch.eye(length, dtype=torch.bool, device=student.device)
    negative = group[:, None] != group[None, :]
    positives = similarity.masked_select(same).view(patches, length, 1)
    negatives = similarity.masked_select(negative).view(patches, length, -1)
    logits = torch.cat([positives, negatives], dim=-1).flatten(0, 1)
    targets = torch.zeros(len(logits), dtype=torch.int64, device=student.device)
    total = F.cross_entropy(logits, targets, reduction="sum")
    n, _, height, width = student.shape
    return total / (height // patch[0] * patch[0] * (width // patch[1] * patch[1])) / n


class PlainAfDCDLoss(nn.Module):
    """Align, hide, project, reconstruct and contrast, densely.

    Args:
        align, projector: of an `AfDCDLoss`, whose weights these share.
        mask_ratio: expected hidden share.
        contrast: arguments of `plain_contrast`.
    """

    def __init__(
        self, align: nn.Module, projector: nn.Module, *, mask_ratio: float = 0.75, **contrast: Any
    ) -> None:
        super().__init__()
        self.align, self.projector = align, projector
        self.mask_ratio, self.contrast = mask_ratio, contrast

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Both terms, unweighted; the mask [N, 1, H, W] is drawn where None."""
        aligned = self.align(student)
        if mask is None:
            n, _, height, width = student.shape
            noise = torch.rand((n, 1, height, width), device=student.device)
            mask = torch.where(noise > 1 - self.mask_ratio, 0.0, 1.0)
        projected = self.projector(aligned * mask)
        squares = F.mse_loss(projected, teacher, reduction="sum")
        return {
            "reconstruction": squares / len(student),
            "contrast": plain_contrast(projected, teacher, **self.contrast),
        }


def plain_logit_kd(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence of the logits [N, K, H, W], averaged over pixels."""
    log_q, p = F.log_softmax(student, dim=1), F.softmax(teacher, dim=1)
    pixels = student.shape[0] * student.shape[2] * student.shape[3]
    return F.kl_div(log_q, p, reduction="sum") / pixels


def plain_teacher(
    model: SemanticSegmentor, batched_inputs: list[dict[str, Any]]
) -> dict[str, torch.Tensor]:
    """Feature map and logits of a whole evaluation, which runs the auxiliary head too."""
    head = model.sem_seg_head
    assert isinstance(head, SegmentationHead)
    with torch.no_grad():
        images = torch.stack([item["image"].to(model.device) for item in batched_inputs])
        features = model.backbone((images - model.pixel_mean) / model.pixel_std)
        logits = head.layers(features)
        if head.aux is not None:
            head.aux(features[head.aux_in_feature])
    return {
        "backbone.res5": features[head.in_feature],
        "sem_seg_head.predictor": logits,
    }
