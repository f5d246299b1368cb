"""Channel-wise distillation: where in the image does a channel respond?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.losses.channels import ChannelProjection
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, DistillationLoss, LossContext, TapShape
from afdcd.losses.settings import check_temperature
from afdcd.losses.shapes import check_same_channels, match_size


def cwd(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 4.0) -> torch.Tensor:
    """KL divergence of each student channel's distribution over positions from the teacher's.

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021
    (arXiv 2011.13256)::

        p(x)[n, c, i] = softmax over positions i of x[n, c, i] / T
        cwd = T^2 / (N * C) * sum over n, c, i of p(t)[n, c, i] * log(p(t)[n, c, i] / p(s)[n, c, i])

    The sum over the H * W positions of a channel isn't divided (each channel has one divergence);
    the sum over images and channels is divided by N * C, so the value is a mean per channel.

    Differs from the authors' code in one point: the student's logarithm comes from a log softmax,
    where theirs takes the log of a softmax, which is minus infinity where that is 0.

    Args:
        student: features or logits [N, C, h, w], any scale; resized bilinearly to the teacher's
            size where they differ.
        teacher: [N, C, H, W]; gets no gradient.
        temperature: T, above 0; 4 in the paper.

    Returns:
        scalar of at least 0, in nats times T^2; 0 where each channel of the student is the
        teacher's plus a constant. 0 without gradient on maps of one pixel.

    Raises:
        ValueError: different numbers of images or channels, or ``temperature`` not above 0.
    """
    check_temperature(temperature)
    check_same_channels(student, teacher, "cwd")
    student = match_size(student, teacher)
    with no_autocast(student):
        log_q = F.log_softmax(at_least_float32(student).flatten(2) / temperature, dim=2)
        log_p = F.log_softmax(at_least_float32(teacher.detach()).flatten(2) / temperature, dim=2)
        divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    channels = teacher.shape[0] * teacher.shape[1]
    return temperature**2 * divergence / channels


@LOSSES.register("cwd")
class CWDLoss(DistillationLoss):
    """`cwd`, behind a 1x1 convolution where the student's channels aren't the teacher's.

    For logits and features alike. The weight is the paper's for logits, 3; for features it is 50.
    The authors' convolution for features is followed by batch norm and ReLU; this one stands alone.

    Args:
        student_channels, teacher_channels: Cs and Ct of the two maps.
        temperature: see `cwd`.

    Raises:
        ValueError: ``temperature`` not above 0.
    """

    TERMS: ClassVar[Mapping[str, float]] = {"cwd": 3.0}
    CHANNELWISE: ClassVar[bool] = True
    DEFAULT_TAPS = ("sem_seg_head.predictor", "sem_seg_head.predictor")

    def __init__(
        self, student_channels: int, teacher_channels: int, *, temperature: float = 4.0
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self.align: nn.Module = nn.Identity()
        if student_channels != teacher_channels:
            self.align = ChannelProjection(student_channels, teacher_channels)

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> CWDLoss:
        return cls(student.channels, teacher.channels, **settings)

    @classmethod
    def check_settings(cls, **settings: Any) -> None:
        cls(1, 1, **settings)

    def compared(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> torch.Tensor:
        return self.align(student)

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> dict[str, torch.Tensor]:
        """Return ``{"cwd": scalar}``, unweighted.

        Args:
            student: [N, Cs, h, w].
            teacher: [N, Ct, H, W]; gets no gradient.
            context: not used.

        Raises:
            ValueError: channels or numbers of images don't fit.
        """
        aligned = self.compared(student, teacher, context=context)
        return {"cwd": cwd(aligned, teacher, temperature=self.temperature)}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
