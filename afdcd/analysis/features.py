"""Figures of feature maps: self-similarity, distances between networks, a plane to look at."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

# Cosines are counted by the nearest multiple of 1 / STEPS.
STEPS = 1000


def patch_similarities(features: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """Cosines between all pairs of positions of each patch.

    Args:
        features: [N, C, H, W]; rows and columns that fill no patch are left out.
        patch: (height, width), cut down to the map's where that is smaller.

    Returns:
        [M], with T (T - 1) / 2 values for each patch of T positions; a position whose features are
        all 0 has the cosine 0 with every other one.
    """
    channels, (height, width) = features.shape[1], features.shape[-2:]
    rows, columns = min(patch[0], height), min(patch[1], width)
    cut = features[..., : height // rows * rows, : width // columns * columns].float()
    tokens = F.unfold(cut, (rows, columns), stride=(rows, columns))  # [N, C * T, P]
    tokens = tokens.transpose(1, 2).reshape(-1, channels, rows * columns)
    tokens = F.normalize(tokens, dim=1)
    first, second = torch.triu_indices(rows * columns, rows * columns, offset=1)
    return (tokens.transpose(1, 2) @ tokens)[:, first, second].flatten()


class Similarities:
    """How often each cosine occurs, to within half of 1 / `STEPS`.

    Attributes:
        counts: int64 [2 * STEPS + 1]; entry k counts the cosine ``k / STEPS - 1``.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * STEPS + 1, dtype=np.int64)

    def add(self, cosines: torch.Tensor) -> None:
        """Count values from -1 to 1."""
        nearest = ((cosines.double().clamp(-1, 1) + 1) * STEPS).round().long()
        self.counts += torch.bincount(nearest.cpu().flatten(), minlength=len(self.counts)).numpy()

    @property
    def share(self) -> np.ndarray:
        """float64 [2 * STEPS + 1]: the counts as shares of all."""
        return self.counts / max(int(self.counts.sum()), 1)

    def mean(self) -> float:
        """The mean cosine."""
        return float(self.share @ np.linspace(-1, 1, len(self.counts)))

    def wasserstein(self, other: Similarities) -> float:
        """1-Wasserstein distance: the area between both cumulative distributions, 0 to 2."""
        return float(np.abs(np.cumsum(self.share - other.share))[:-1].sum() / STEPS)


def relational_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How differently two networks relate each position of an image to the others.

    For each position the mean, over all others, of the absolute difference of both networks'
    cosines, of features less their mean over the positions. Needs no layer between the networks,
    and doesn't change where one's features are rotated or multiplied by a number.

    Args:
        student: [n, Cs], features of n positions.
        teacher: [n, Ct], of the same ones.

    Returns:
        [n], from 0 to 2; of a single position 0.
    """
    cosines = []
    for rows in (student, teacher):
        centred = F.normalize(rows.double() - rows.double().mean(0), dim=1)
        cosines.append(centred @ centred.T)
    apart = (cosines[0] - cosines[1]).abs().fill_diagonal_(0.0)
    return apart.sum(1) / max(len(apart) - 1, 1)


def linear_cka(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al., arXiv 1905.00414, section 3.2).

    Args:
        student: [n, Cs], features of n positions.
        teacher: [n, Ct], of the same ones.

    Returns:
        from 0 to 1, for equal features up to rotation and scale; NaN where one doesn't vary.
    """
    s, t = (rows.double() - rows.double().mean(0) for rows in (student, teacher))
    own = torch.linalg.matrix_norm(s.T @ s) * torch.linalg.matrix_norm(t.T @ t)
    return float((s.T @ t).square().sum() / own) if own > 0 else float("nan")


def plane(rows: torch.Tensor) -> torch.Tensor:
    """Positions [n, C] on their first two principal components, [n, 2]; 0 where C is 1."""
    centred = rows.double() - rows.double().mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    first = vectors.flip(1)[:, :2]
    # An eigenvector's sign is arbitrary: its largest entry is made positive.
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()
    return F.pad(centred @ first, (0, 2 - first.shape[1]))
