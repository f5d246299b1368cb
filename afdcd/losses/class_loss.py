"""What the losses of class probabilities have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from afdcd.losses.registry import DistillationLoss, TapShape

if TYPE_CHECKING:
    from typing_extensions import Self


class ClassLoss(DistillationLoss):
    """Compares the probabilities of classes, by default those of the heads' logits.

    Attributes:
        NAME: what the loss is registered as, for errors.
    """

    NAME: ClassVar[str]
    CHANNELWISE: ClassVar[bool] = True
    DEFAULT_TAPS: ClassVar[tuple[str, str] | None] = (
        "sem_seg_head.predictor",
        "sem_seg_head.predictor",
    )

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> Self:
        """Construct for logits of these shapes.

        Raises:
            ValueError: different numbers of classes, fewer than 2, or settings that can't work.
        """
        if student.channels != teacher.channels:
            raise ValueError(
                f"{cls.NAME} compares {student.channels} channels of the student with "
                f"{teacher.channels} channels of the teacher: their classes must be the same. "
                "Check NUM_CLASSES of both configs, or set this loss to null"
            )
        if student.channels < 2:
            raise ValueError(
                f"{cls.NAME} compares the probabilities of classes, and the taps have 1 channel, "
                "such as a depth: it would say nothing. Use output_kd, or a loss of features, or "
                "set this to null"
            )
        return cls(**settings)
