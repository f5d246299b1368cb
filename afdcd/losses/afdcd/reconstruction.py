"""Masked reconstruction: regenerate the teacher's feature map from a part of the student's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from afdcd.losses.afdcd.masks import make_mask
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.reduction import check_reduction
from afdcd.losses.shapes import check_feature_pair, match_size


def masked_projection(
    student: torch.Tensor,
    *,
    align: Callable[[torch.Tensor], torch.Tensor] | None = None,
    mask: torch.Tensor | None = None,
    projector: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Align, hide and project: the map that stands for the teacher's in both Af-DCD losses.

    The mask is applied after the align convolution, so a hidden position is exactly zero (it
    does not keep the convolution's bias), as in the published implementation.

    Args:
        student: [N, Cs, H, W].
        align: Cs to Ct channels; the identity when None.
        mask: [N, 1, H, W], 1 = kept, 0 = hidden; nothing is hidden when None.
        projector: Ct to Ct channels; the identity when None.

    Returns:
        [N, Ct, H, W].

    Raises:
        ValueError: the mask's shape is not [N, 1, H, W] of the student's.
    """
    aligned = student if align is None else align(student)
    if mask is not None:
        check_mask(mask, student)
        aligned = aligned * mask.to(aligned)
    return aligned if projector is None else projector(aligned)


def check_mask(mask: torch.Tensor, student: torch.Tensor) -> None:
    """Raise ValueError unless ``mask`` is [N, 1, H, W] for a ``student`` [N, C, H, W]."""
    expected = (student.shape[0], 1, *student.shape[-2:])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"mask must be [N, 1, H, W] = {expected} for a feature map of shape "
            f"{tuple(student.shape)}; got {tuple(mask.shape)}"
        )


def reconstruction(
    projected: torch.Tensor, teacher: torch.Tensor, *, reduction: str = "published"
) -> torch.Tensor:
    """Squared distance of a regenerated map to the teacher's, without a gradient to the teacher.

    Args:
        projected, teacher: [N, C, H, W], any floating dtype; computed in float32 at least.
        reduction: ``published`` sums over C, H and W and divides by N (per image), so its weight
            depends on the feature size. ``mean`` divides by N, C, H and W (per element).

    Returns:
        scalar, dimensionless.
    """
    check_reduction(reduction)
    check_feature_pair(projected, teacher, "reconstruction")
    with no_autocast(projected):
        difference = at_least_float32(projected) - at_least_float32(teacher.detach())
        total = difference.square().sum()
    return total / (projected.shape[0] if reduction == "published" else projected.numel())


def masked_reconstruction(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    align: Callable[[torch.Tensor], torch.Tensor] | None = None,
    projector: Callable[[torch.Tensor], torch.Tensor] | None = None,
    mask: str | torch.Tensor | None = "random",
    mask_ratio: float = 0.75,
    generator: torch.Generator | None = None,
    reduction: str = "published",
) -> torch.Tensor:
    """Masked reconstruction of Af-DCD (arXiv 2312.04168, the feature reconstruction term).

    ``sum((projector(mask * align(student)) - teacher)^2) / N``

    Args:
        student: [N, Cs, h, w]; resized bilinearly to the teacher's size where they differ.
        teacher: [N, Ct, H, W]; gets no gradient.
        align: Cs to Ct channels, e.g. a 1x1 convolution; needed when Cs and Ct differ.
        projector: e.g. `PlainProjector`; the identity when None.
        mask: ``random``, ``centre``, a tensor [N, 1, H, W] (1 = kept), or None to hide nothing.
        mask_ratio: expected hidden share of the random mask, 0..1. The paper uses 0.75.
        generator: source of the random mask; the global CPU generator when None.
        reduction: see `reconstruction`.

    Returns:
        scalar, dimensionless.

    Raises:
        ValueError: shapes, ``mask``, ``mask_ratio`` or ``reduction`` don't fit.
    """
    student = match_size(student, teacher)
    if isinstance(mask, str):
        mask = make_mask(mask, student, ratio=mask_ratio, generator=generator)
    projected = masked_projection(student, align=align, mask=mask, projector=projector)
    return reconstruction(projected, teacher, reduction=reduction)
