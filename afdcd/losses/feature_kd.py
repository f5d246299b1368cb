"""Feature distillation through a 1x1 projector: normalised MSE, or its log-sum form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from afdcd.losses.channels import ChannelProjection
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, DistillationLoss, LossContext, TapShape
from afdcd.losses.shapes import check_same_channels, match_size

FORMS = ("normalised_mse", "log_sum")

# Added to the variances; the second is the authors'.
_EPSILON = {"normalised_mse": 1e-5, "log_sum": 1e-4}
# Added within the logarithm, as in the authors' code for transformers.
_LOG_EPSILON = 1e-5


def feature_kd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    form: str = "normalised_mse",
    alpha: float = 4.0,
) -> torch.Tensor:
    """Distance of two normalised feature maps, so that the teacher's magnitudes play no part.

    ``normalised_mse``: Liu et al., "Normalized Feature Distillation for Semantic Segmentation"
    (arXiv 2207.05256). Every channel of every image is brought to mean 0 and standard deviation 1
    over its H * W positions; the loss is the mean square of the difference::

        sum over n, c, y, x of (norm(s) - norm(t))^2 / (N * C * H * W)

    a mean per element, which is 2 * (1 - Pearson's correlation), averaged per image and channel.
    The paper has an L2 distance and we know of no code by its authors: the divisor is ours, and
    makes the value independent of the map's size.

    ``log_sum``: Miles and Mikolajczyk, "Understanding the Role of the Projector in Knowledge
    Distillation", AAAI 2024 (arXiv 2303.11098). Every channel is brought to mean 0 and standard
    deviation 1 over the batch (batch norm without scale and shift), here over N * H * W values::

        log(sum over n, c, y, x of |norm(s) - norm(t)|^alpha + 1e-5)

    The sum isn't divided, as published: a divisor would only shift the value by a constant. The
    gradient doesn't grow with the map, but the value does, by log(N * H * W), and may be negative:
    it is at least log(1e-5), for equal maps. Differs from the authors' ImageNet code: theirs pools
    the maps to one vector per image before it projects them, and has no 1e-5, so that the loss of
    equal maps is minus infinity and its gradient undefined. As there, statistics are those of this
    process's images, and the value of a batch isn't the mean of its parts'.

    Args:
        student: features [N, C, h, w], already in the teacher's channels; resized bilinearly to
            the teacher's size where they differ.
        teacher: features [N, C, H, W]; gets no gradient.
        form: ``normalised_mse`` or ``log_sum``.
        alpha: power of the differences in ``log_sum``, at least 1; 4 in the authors'
            code. Without effect on ``normalised_mse``.

    Returns:
        scalar: ``normalised_mse`` in 0..4, 0 for maps equal up to a positive factor and a constant
        for each channel (and without gradient on maps of one pixel); ``log_sum`` as above.

    Raises:
        ValueError: different numbers of images or channels, an unknown ``form``, or ``alpha``
            below 1.
    """
    _check_settings(form, alpha)
    check_same_channels(student, teacher, "feature_kd")
    student = match_size(student, teacher)
    dims = (2, 3) if form == "normalised_mse" else (0, 2, 3)
    with no_autocast(student):
        normal_student = _normalise(at_least_float32(student), dims, _EPSILON[form])
        normal_teacher = _normalise(at_least_float32(teacher.detach()), dims, _EPSILON[form])
        difference = normal_student - normal_teacher
        if form == "normalised_mse":
            return difference.square().mean()
        return (difference.abs().pow(alpha).sum() + _LOG_EPSILON).log()


def _normalise(features: torch.Tensor, dims: tuple[int, ...], epsilon: float) -> torch.Tensor:
    """Mean 0 and standard deviation 1 along ``dims``; 0 where there is no variation.

    Written out because PyTorch's instance and batch norm refuse a single value per channel.
    """
    variance, mean = torch.var_mean(features, dims, correction=0, keepdim=True)
    return (features - mean) * (variance + epsilon).rsqrt()


@LOSSES.register("feature_kd")
class FeatureKDLoss(DistillationLoss):
    """`feature_kd` of the student's map after a 1x1 convolution.

    The projector is there even where the channels agree, as published: its purpose is that the
    student's features need not equal the teacher's, only be a linear map away. Normalisation
    follows in the loss, without scale and shift as in the authors' code (they would bring the
    magnitudes back), and without running statistics, which nothing would read.

    Args:
        student_channels, teacher_channels: Cs and Ct of the two maps.
        form, alpha: see `feature_kd`.

    Raises:
        ValueError: a setting that can't work.
    """

    TERMS: ClassVar[Mapping[str, float]] = {"feature_kd": 1.0}
    DEFAULT_TAPS = ("backbone.res5", "backbone.res5")

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        form: str = "normalised_mse",
        alpha: float = 4.0,
    ) -> None:
        super().__init__()
        _check_settings(form, alpha)
        self.form = form
        self.alpha = alpha
        self.projector = ChannelProjection(student_channels, teacher_channels)

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> FeatureKDLoss:
        return cls(student.channels, teacher.channels, **settings)

    @classmethod
    def check_settings(cls, **settings: Any) -> None:
        cls(1, 1, **settings)

    def compared(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> torch.Tensor:
        return self.projector(student)

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> dict[str, torch.Tensor]:
        """Return ``{"feature_kd": scalar}``, unweighted.

        Args:
            student: [N, Cs, h, w].
            teacher: [N, Ct, H, W]; gets no gradient.
            context: not used.

        Raises:
            ValueError: channels or numbers of images don't fit.
        """
        projected = self.compared(student, teacher, context=context)
        return {"feature_kd": feature_kd(projected, teacher, form=self.form, alpha=self.alpha)}

    def extra_repr(self) -> str:
        return f"form={self.form}, alpha={self.alpha}"


def _check_settings(form: str, alpha: float) -> None:
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if not 1 <= alpha < math.inf:
        raise ValueError(f"alpha must be at least 1; got {alpha}")
