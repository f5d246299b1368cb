"""Distillation of predicted values, such as depths, as if they were labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, DistillationLoss, LossContext, TapShape
from afdcd.losses.shapes import check_same_channels, match_size


def output_kd(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two networks' outputs.

    The teacher's predictions take the place of labels, as in Yang et al., "Depth Anything V2",
    NeurIPS 2024 (arXiv 2406.09414), whose losses for them are others. The sum of the absolute
    differences is divided by all N * K * H * W values. Of a depth network, whose output is the
    logarithm of the depth, it is the mean of ``|log(y / t)|``.

    Args:
        student: [N, K, h, w]; resized bilinearly to the teacher's size where they differ.
        teacher: [N, K, H, W]; gets no gradient.

    Returns:
        scalar, in the outputs' unit.

    Raises:
        ValueError: different numbers of channels or images.
    """
    check_same_channels(student, teacher, "output_kd")
    student = match_size(student, teacher)
    with no_autocast(student):
        difference = at_least_float32(student) - at_least_float32(teacher.detach())
        return difference.abs().mean()


@LOSSES.register("output_kd")
class OutputKDLoss(DistillationLoss):
    """`output_kd`, for tasks that predict values; of logits it would compare what has no scale."""

    TERMS: ClassVar[Mapping[str, float]] = {"output_kd": 1.0}
    CHANNELWISE: ClassVar[bool] = True
    DEFAULT_TAPS = ("sem_seg_head.predictor", "sem_seg_head.predictor")

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> OutputKDLoss:
        """Construct for outputs of these shapes.

        Raises:
            ValueError: different numbers of channels.
        """
        if student.channels != teacher.channels:
            raise ValueError(
                f"output_kd compares {student.channels} channels of the student with "
                f"{teacher.channels} channels of the teacher: both must predict the same values"
            )
        return cls(**settings)

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> dict[str, torch.Tensor]:
        """Return ``{"output_kd": scalar}``, unweighted; see `output_kd`."""
        return {"output_kd": output_kd(student, teacher)}
