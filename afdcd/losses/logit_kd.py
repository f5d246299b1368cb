"""Knowledge distillation of the logits, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, DistillationLoss, LossContext, TapShape
from afdcd.losses.settings import check_temperature
from afdcd.losses.shapes import match_size


def logit_kd(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """KL divergence of the student's class distribution from the teacher's, at every pixel.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), as used
    with Af-DCD: ``temperature^2 * KL(softmax(teacher / temperature) || softmax(student /
    temperature))``, summed over the classes and averaged over all N * H * W pixels (``batchmean``
    on [N, K, H, W] would divide by N alone).

    Args:
        student: logits [N, K, h, w]; resized bilinearly to the teacher's size where they differ.
        teacher: logits [N, K, H, W]; gets no gradient.
        temperature: above 0; 1 in the paper.

    Returns:
        scalar, in nats.

    Raises:
        ValueError: different numbers of classes or images, or ``temperature`` not above 0.
    """
    check_temperature(temperature)
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            "logit_kd takes logits [N, K, H, W] of the same images and classes; got student "
            f"{tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        )
    student = match_size(student, teacher)
    with no_autocast(student):
        log_q = F.log_softmax(at_least_float32(student) / temperature, dim=1)
        log_p = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
        divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    pixels = teacher.shape[0] * teacher.shape[2] * teacher.shape[3]
    return temperature**2 * divergence / pixels


@LOSSES.register("logit_kd")
class LogitKDLoss(DistillationLoss):
    """`logit_kd` with its temperature."""

    TERMS: ClassVar[Mapping[str, float]] = {"logit_kd": 1.0}
    CHANNELWISE: ClassVar[bool] = True
    DEFAULT_TAPS: ClassVar[tuple[str, str] | None] = (
        "sem_seg_head.predictor",
        "sem_seg_head.predictor",
    )

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> LogitKDLoss:
        """Construct for logits of these shapes.

        Raises:
            ValueError: different numbers of classes, or settings that can't work.
        """
        if student.channels != teacher.channels:
            raise ValueError(
                f"logit_kd compares {student.channels} channels of the student with "
                f"{teacher.channels} channels of the teacher: their classes must be the same. "
                "Check NUM_CLASSES of both configs, or set this loss to null"
            )
        return cls(**settings)

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        *,
        context: LossContext | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return ``{"logit_kd": scalar}``, unweighted; see `logit_kd`."""
        return {"logit_kd": logit_kd(student, teacher, temperature=self.temperature)}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
