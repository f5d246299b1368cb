"""Compact targets: a teacher's feature map on its first principal components.

The component j of a map's position x [C] is ``v_j . (x - mean)``, where ``v_j`` is the unit
eigenvector of the j-th largest eigenvalue of the covariance over the positions of training views.
The first D of them are then rotated by a fixed random rotation of D dimensions, so that every
channel, and so every channel group of a loss, has about the same share of the variance; without it
a loss's first group would hold most of it.

Both steps are isometries: of what the D components keep, all distances between positions are
exactly those of the teacher's own map. Nothing is scaled (no whitening), since the directions in
which the teacher varies little are mostly noise.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.losses.precision import no_autocast

# Of the rotation; no run depends on another one's.
_ROTATION_SEED = 2312_04168


class PrincipalComponents(nn.Module):
    """Projects a map [N, C, H, W] on D components; frozen.

    Its buffers are part of checkpoints, so that a resumed run has the same ones.

    Args:
        channels: C.
        dims: D, at most C.

    Attributes:
        weight: [D, C], orthonormal rows.
        bias: [D], which subtracts the mean.
        kept: [1], the share of the variance that the components keep; NaN before they are fitted.

    Raises:
        ValueError: ``dims`` isn't from 1 to C.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    kept: torch.Tensor

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        if not 1 <= dims <= channels:
            raise ValueError(
                f"DIMS is the number of components of the teacher's {channels} channels, from 1 to "
                f"{channels} (0 for the map itself); got {dims}"
            )
        self.register_buffer("weight", torch.zeros(dims, channels))
        self.register_buffer("bias", torch.zeros(dims))
        self.register_buffer("kept", torch.full((1,), float("nan")))

    @property
    def fitted(self) -> bool:
        """Whether there are components."""
        return bool(torch.isfinite(self.kept).all())

    def set(self, fit: ComponentFit) -> None:
        """Take the components of what a fit has seen."""
        weight, bias, kept = fit.components(len(self.bias))
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.kept.fill_(kept)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The components [N, D, H, W] of a map [N, C, H, W], in float32 at least.

        Raises:
            RuntimeError: they weren't fitted.
        """
        if not self.fitted:
            raise RuntimeError("the teacher's components weren't fitted: see fit_components")
        with no_autocast(features):
            wide = features.to(torch.promote_types(features.dtype, self.weight.dtype))
            return F.conv2d(wide, self.weight[:, :, None, None].to(wide), self.bias.to(wide))


class ComponentFit:
    """Mean and covariance of the channels over the positions of maps, one map after the other.

    Batches are merged as by Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979), in float64, so that the mean is exact and nothing but
    sums is kept: C^2 + C values. The same maps in the same order give the same components.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: torch.Tensor | None = None
        self._scatter: torch.Tensor | None = None

    def add(self, features: torch.Tensor) -> None:
        """Take the positions of a map [N, C, H, W] into account."""
        rows = features.detach().permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double()
        count, mean = len(rows), rows.mean(0)
        # Centred, so that products in float32 are precise; only their sum is in float64.
        centred = (rows - mean).float()
        with no_autocast(centred):
            scatter = (centred.T @ centred).double().cpu()
        mean = mean.cpu()
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        both, apart = self.count + count, mean - self._mean
        self._scatter += scatter + torch.outer(apart, apart) * (self.count * count / both)
        self._mean += apart * (count / both)
        self.count = both

    def components(self, dims: int) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The first components: see the module.

        Returns:
            weight [D, C] and bias [D], in float64, and the share of the variance that they keep:
            their variances' sum over that of all C, 1 where nothing varies.

        Raises:
            ValueError: there are no positions, or values aren't finite.
        """
        if self._mean is None or self._scatter is None:
            raise ValueError("principal components take a feature map; got none")
        if not self._scatter.isfinite().all():
            raise ValueError("the teacher's feature maps hold values that are not finite")
        values, vectors = torch.linalg.eigh(self._scatter)
        values, first = values.flip(0).clamp(min=0), vectors.flip(1)[:, :dims].T
        # An eigenvector's sign is arbitrary: its largest entry is made positive.
        largest = first.abs().argmax(1, keepdim=True)
        first = first * first.gather(1, largest).sign()
        weight = rotation(dims) @ first
        total = float(values.sum())
        kept = float(values[:dims].sum()) / total if total > 0 else 1.0
        return weight, -(weight @ self._mean), kept


def rotation(dims: int) -> torch.Tensor:
    """A fixed random rotation (or reflection) [D, D], in float64, uniformly distributed."""
    generator = torch.Generator().manual_seed(_ROTATION_SEED + dims)
    normal = torch.randn(dims, dims, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()
