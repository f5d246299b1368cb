"""DIST: the relations between classes and between pixels, rather than the probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from afdcd.losses.class_loss import ClassLoss
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, LossContext
from afdcd.losses.settings import check_temperature
from afdcd.losses.shapes import check_same_channels, match_size

# Added to the product of two norms, as in the authors' code.
_EPSILON = 1e-8


def dist(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inter-class and intra-class distance of the two networks' class probabilities.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022
    (arXiv 2205.10536). With ``p`` and ``q`` the teacher's and the student's probabilities
    [N, K, H, W], softmax of the logits divided by T, and ``r`` Pearson's correlation::

        inter = T^2 / (N * H * W) * sum over n, y, x of 1 - r(q[n, :, y, x], p[n, :, y, x])
        intra = T^2 / K * sum over k of 1 - r(q[:, k, :, :], p[:, k, :, :])

    In the paper, rows are instances and columns are classes. Here, as in the authors'
    segmentation code, every pixel is an instance: ``inter`` correlates the K probabilities of a
    pixel and is a mean per pixel, over all N * H * W of them, labelled or not; ``intra``
    correlates a class's probabilities over all N * H * W pixels of the batch, not image by image,
    and is a mean per class. So ``intra`` depends on how a batch is shared among processes or
    accumulated in parts: each works on its own images, as in the authors' code.

    ``r`` is ``(a . b) / (|a| * |b| + 1e-8)`` of the centred rows, as in their code. Two
    differences: a row without variation except rounding (a uniform pixel, maps of one pixel in
    ``intra``) has r = 0 and no gradient, where theirs has rounding noise divided by 1e-8; and T
    with its T^2 is from their classification code, since their segmentation code has neither
    (T = 1). They add the loss of the auxiliary head with weight 0.4: for that, add another loss on
    its taps.

    Args:
        student: logits [N, K, h, w]; resized bilinearly to the teacher's size where they differ.
        teacher: logits [N, K, H, W]; gets no gradient.
        temperature: T, above 0; 1 for segmentation in the authors' code.

    Returns:
        the scalars ``inter`` and ``intra``, each in 0..2 times T^2. Both are 0 for equal logits
        (to ``1e-8 / |a|^2`` for each row, so a class that is nearly absent counts up to T^2 / K),
        and neither changes under positive affine maps of a row's probabilities.

    Raises:
        ValueError: different numbers of images or classes, fewer than 2 classes, or
            ``temperature`` not above 0.
    """
    check_temperature(temperature)
    check_same_channels(student, teacher, "dist")
    if teacher.shape[1] < 2:
        raise ValueError(
            "dist correlates the probabilities of classes and takes logits of at least 2 classes; "
            f"got shape {tuple(teacher.shape)}"
        )
    student = match_size(student, teacher)
    with no_autocast(student):
        q = F.softmax(at_least_float32(student) / temperature, dim=1)
        p = F.softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
        inter = 1 - _correlation(q, p, dims=(1,)).mean()
        intra = 1 - _correlation(q, p, dims=(0, 2, 3)).mean()
    return temperature**2 * inter, temperature**2 * intra


def _correlation(a: torch.Tensor, b: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """Pearson's correlation along ``dims``; 0 where one of the two doesn't vary."""
    centred_a = a - a.mean(dims, keepdim=True)
    centred_b = b - b.mean(dims, keepdim=True)
    norm_a = torch.linalg.vector_norm(centred_a, dim=dims)
    norm_b = torch.linalg.vector_norm(centred_b, dim=dims)
    product = (centred_a * centred_b).sum(dims)
    # The rounding error of a mean of equal numbers, relative to these numbers.
    rounding = 16 * torch.finfo(a.dtype).eps
    varies = norm_a > rounding * torch.linalg.vector_norm(a, dim=dims)
    varies &= norm_b > rounding * torch.linalg.vector_norm(b, dim=dims)
    return torch.where(varies, product / (norm_a * norm_b + _EPSILON), 0.0)


@LOSSES.register("dist")
class DISTLoss(ClassLoss):
    """`dist` with its temperature.

    The paper's beta and gamma are the weights of the terms ``inter`` and ``intra``: 1 and 1 for
    segmentation.

    Args:
        temperature: see `dist`.

    Raises:
        ValueError: ``temperature`` not above 0.
    """

    TERMS: ClassVar[Mapping[str, float]] = {"inter": 1.0, "intra": 1.0}
    NAME = "dist"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> dict[str, torch.Tensor]:
        """Return ``{"inter": scalar, "intra": scalar}``, unweighted.

        Args:
            student: logits [N, K, h, w].
            teacher: logits [N, K, H, W]; gets no gradient.
            context: not used.

        Raises:
            ValueError: classes or numbers of images don't fit.
        """
        inter, intra = dist(student, teacher, temperature=self.temperature)
        return {"inter": inter, "intra": intra}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
