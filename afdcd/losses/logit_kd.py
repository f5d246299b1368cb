"""Knowledge distillation of the logits, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from afdcd.losses.class_loss import ClassLoss
from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.losses.registry import LOSSES, LossContext
from afdcd.losses.settings import check_temperature
from afdcd.losses.shapes import match_size


def logit_kd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    temperature: float = 1.0,
    counted: torch.Tensor | None = None,
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
        counted: bool [N, H, W], the pixels that the sum and the average are over; all by default.

    Returns:
        scalar, in nats; 0 where no pixel counts.

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
        if counted is None:
            divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
            pixels = teacher.shape[0] * teacher.shape[2] * teacher.shape[3]
            return temperature**2 * divergence / pixels
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
        divergence = (divergence * counted).sum()
        return temperature**2 * divergence / counted.sum().clamp(min=1)


def confident(teacher: torch.Tensor, least: float) -> torch.Tensor:
    """Where the teacher's likeliest class has at least this probability: bool [N, H, W].

    Args:
        teacher: logits [N, K, H, W].
        least: 0 to 1.
    """
    logits = at_least_float32(teacher.detach())
    return logits.amax(1) - logits.logsumexp(1) >= math.log(max(least, 1e-30))


@LOSSES.register("logit_kd")
class LogitKDLoss(ClassLoss):
    """`logit_kd` with its temperature, perhaps only where the teacher is sure.

    Args:
        temperature: see `logit_kd`.
        min_confidence: pixels count where the teacher gives its likeliest class at least this
            probability (at temperature 1); the average is over these, and their share of all pixels
            is logged as ``confident_pixels``. 0 counts all, and logs nothing.
    """

    TERMS: ClassVar[Mapping[str, float]] = {"logit_kd": 1.0}
    NAME = "logit_kd"

    def __init__(self, temperature: float = 1.0, min_confidence: float = 0.0) -> None:
        super().__init__()
        check_temperature(temperature)
        if not 0 <= min_confidence < 1:
            raise ValueError(
                f"min_confidence must be a probability from 0 to below 1; got {min_confidence}"
            )
        self.temperature, self.min_confidence = temperature, min_confidence

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        *,
        context: LossContext | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return ``{"logit_kd": scalar}``, unweighted; see `logit_kd`."""
        counted = None
        if self.min_confidence:
            counted = confident(teacher, self.min_confidence)
            if context is not None:
                context.figures["confident_pixels"] = counted.float().mean()
        value = logit_kd(student, teacher, temperature=self.temperature, counted=counted)
        return {"logit_kd": value}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, min_confidence={self.min_confidence}"
