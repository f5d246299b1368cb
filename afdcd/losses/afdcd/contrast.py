"""Contrast of student and teacher tokens inside small patches, across space and channel groups.

Shape letters: N images, C channels, H x W positions (after pooling), patches of h x w positions,
M channel groups; P = N * (H // h) * (W // w) patches, L = h * w * M tokens in a patch,
D = C / M values in a token.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from afdcd.losses.afdcd.kernels.contrast import check_kernel, map_contrast
from afdcd.losses.afdcd.kernels.tokens import patch_tokens
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.reduction import check_reduction
from afdcd.losses.settings import check_temperature
from afdcd.losses.shapes import check_feature_pair

CONTRAST_KINDS = ("omni", "omni_all", "spatial", "channel")
DISTANCES = ("l1", "l2", "cosine")
# The order of each distance's norm.
ORDERS = {"l1": 1.0, "l2": 2.0}


def cosine_contrast(
    student: torch.Tensor, teacher: torch.Tensor, compared: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """As `map_contrast`, from tokens [P, L, D], with the distance 1 - cosine similarity."""
    similarity = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).transpose(-1, -2)
    # log sum exp of -(1 - similarity) minus its positive: the 1 cancels.
    logits = similarity / temperature
    positives = logits.diagonal(dim1=-2, dim2=-1)
    return (torch.logsumexp(logits.masked_fill(~compared, -torch.inf), -1) - positives).sum()


def compared_pairs(
    kind: str, *, groups: int, positions: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Which teacher tokens stand in the denominator of each student token: bool [L, L].

    The positive (the diagonal) always does. ``omni`` adds the *other* channel groups at every
    position of the patch; the other kinds add every other token of it.
    """
    length = positions * groups
    if kind != "omni":
        return torch.ones(length, length, dtype=torch.bool, device=device)
    group = torch.arange(length, device=device) % groups
    other_group = group[:, None] != group[None, :]
    return other_group | torch.eye(length, dtype=torch.bool, device=device)


def patch_contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    kind: str = "omni",
    groups: int = 16,
    patch: tuple[int, int] = (4, 4),
    pool: int = 4,
    temperature: float = 0.07,
    distance: str = "l1",
    reduction: str = "published",
    kernel: str = "auto",
) -> torch.Tensor:
    """Omni-contrasting loss of Af-DCD (arXiv 2312.04168) and its variants.

    Both maps are max-pooled by ``pool`` and cut into patches of h x w positions and M channel
    groups: a token is one group at one position. For each student token the teacher's token at
    the same place is the positive, and with similarity = -distance the loss is its InfoNCE over
    positive and negatives:

    ======== ============================================================ ==============
    kind     negatives, all from the teacher and the same patch           uses
    ======== ============================================================ ==============
    omni     the other groups at every position (published)               groups, patch
    omni_all every other token: also the same group at other positions    groups, patch
    spatial  the other positions, all channels together                   patch
    channel  the other groups of the same position                        groups
    ======== ============================================================ ==============

    Sizes need not divide: pooling floors, and what the patch grid can't cover is cropped at the
    bottom and right. (The published code fails there, except on CamVid, where it crops to 44x44.)
    The logits grow with the width C / M of a group: 128 as published.

    Args:
        student: [N, C, H, W], any floating dtype; computed in float32 at least.
        teacher: [N, C, H, W]; gets no gradient.
        kind: see the table.
        groups: M, must divide C; at least 2 for ``omni`` and ``channel``.
        patch: (h, w) positions of the pooled map.
        pool: kernel and stride of the max-pooling; 0 or 1 for none.
        temperature: above 0; 0.07 in the paper.
        distance: ``l1`` (published), ``l2`` or ``cosine``.
        reduction: ``published`` sums over the tokens and divides by the covered H * W and by N
            (per position of an image: M tokens are summed). ``mean`` also divides by the number
            of groups (per token), so that its size doesn't depend on M.
        kernel: how the loss is computed, without effect on its value: see `map_contrast`.

    Returns:
        scalar, in nats.

    Raises:
        ValueError: an argument is out of range, or the map holds no patch.
    """
    check_reduction(reduction)
    check_kernel(kernel)
    check_feature_pair(student, teacher, "patch_contrast")
    groups, patch, pool = check_contrast_settings(
        kind, groups=groups, patch=patch, pool=pool, temperature=temperature, distance=distance
    )
    check_contrast_fit(student.shape, groups=groups, patch=patch, pool=pool)

    teacher = teacher.detach()
    if pool > 1:
        # In the inputs' own precision: taking a maximum doesn't round.
        student, teacher = F.max_pool2d(student, pool), F.max_pool2d(teacher, pool)
    compared = compared_pairs(
        kind, groups=groups, positions=patch[0] * patch[1], device=student.device
    )
    with no_autocast(student):
        if distance == "cosine":
            student_tokens, teacher_tokens = (
                patch_tokens(at_least_float32(x), groups=groups, patch=patch)
                for x in (student, teacher)
            )
            total = cosine_contrast(
                student_tokens, teacher_tokens, compared, temperature=temperature
            )
        else:
            total = map_contrast(
                student,
                teacher,
                compared,
                groups=groups,
                patch=patch,
                temperature=temperature,
                order=ORDERS[distance],
                kernel=kernel,
            )

    n, _, height, width = student.shape
    count = n * (height // patch[0]) * (width // patch[1]) * len(compared)
    return total / (count if reduction == "mean" else count // groups)


def check_contrast_settings(
    kind: str,
    *,
    groups: int,
    patch: tuple[int, int],
    pool: int,
    temperature: float,
    distance: str,
) -> tuple[int, tuple[int, int], int]:
    """Check what can be checked without a feature map.

    Returns:
        (groups, patch, pool) as ``kind`` uses them: one group for ``spatial``, a 1x1 patch for
        ``channel``.

    Raises:
        ValueError: an argument is out of range; names it, its value and the values allowed.
    """
    if kind not in CONTRAST_KINDS:
        raise ValueError(f"kind must be one of {', '.join(CONTRAST_KINDS)}; got {kind!r}")
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}; got {distance!r}")
    check_temperature(temperature)
    if len(patch) != 2 or min(patch) < 1:
        raise ValueError(f"patch must be (height, width), each at least 1; got {tuple(patch)}")
    if pool < 0:
        raise ValueError(f"pool must be 0 (none) or a kernel size; got {pool}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1; got {groups}")
    if kind in ("omni", "channel") and groups == 1:
        raise ValueError(
            f"kind {kind!r} takes its negatives from the other channel groups, so one group "
            "leaves none: use groups of 2 or more, or kind 'spatial'"
        )
    height, width = patch
    if kind == "spatial":
        if height * width == 1:
            raise ValueError(
                "kind 'spatial' takes its negatives from the other positions of a patch, so a "
                "1x1 patch leaves none: use a larger patch, or kind 'channel'"
            )
        groups = 1
    elif kind == "channel":
        height, width = 1, 1
    return groups, (height, width), max(pool, 1)


def check_contrast_fit(
    shape: torch.Size | tuple[int, ...], *, groups: int, patch: tuple[int, int], pool: int
) -> None:
    """Raise ValueError where a map [N, C, H, W] holds no patch or ``groups`` doesn't divide C.

    Args:
        shape: of the map before pooling.
        groups, patch, pool: as returned by `check_contrast_settings`.
    """
    _, channels, height, width = shape
    if channels % groups:
        fitting = [m for m in range(2, min(channels, 64) + 1) if channels % m == 0]
        raise ValueError(
            f"groups must divide the channels: got {groups} groups for {channels} channels. "
            f"These fit: {', '.join(map(str, fitting)) or 'none'}"
        )
    rows, cols = height // pool, width // pool
    if rows < patch[0] or cols < patch[1]:
        raise ValueError(
            f"a feature map of {height}x{width}, pooled by {pool} to {rows}x{cols}, holds no "
            f"patch of {patch[0]}x{patch[1]}: use a smaller pool or patch, or a larger crop"
        )
