"""What a distillation loss is, and the registry that configs choose losses from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from afdcd.utils.registry import Registry

LOSSES = Registry("LOSSES")


class TapShape(NamedTuple):
    """Size of a feature map that is compared, for one training image.

    ``whole`` is the number of channels of the map that it is made of, where it holds principal
    components of a larger one; else 0. ``corners`` says of logits that their first and last
    position are the image's edges, as ``align_corners=True`` has it.
    """

    channels: int
    height: int
    width: int
    whole: int = 0
    corners: bool = False


@dataclass(frozen=True)
class LossContext:
    """What only some losses need besides the two maps.

    Attributes:
        generator: source of random numbers (masks), on the CPU; a function of the run's seed and
            the step. The global CPU generator when None.
        part: which part of the whole batch these maps are, and of how many equal ones. Random draws
            are made for the whole batch, so that values don't depend on how it is shared out.
        step: number of this training step, counted from 0.
        batched_inputs: the samples, with their labels, in Detectron2's form; empty where unknown.
        figures: a loss may put scalars here that are to be logged beside its terms, by name.
    """

    generator: torch.Generator | None = None
    part: tuple[int, int] = (0, 1)
    step: int = 0
    batched_inputs: tuple[Mapping[str, Any], ...] = ()
    figures: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LossDescription:
    """What a person may want to know about a loss on a pair of taps.

    Attributes:
        facts: figures, by the name of what they describe.
        remarks: sentences on what may be unwanted, by kind (a word or two).
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)


class DistillationLoss(nn.Module):
    """A loss over one pair of taps; subclass it and register the class in `LOSSES`.

    The constructor's arguments that have a default are the loss's settings: in a config they stand
    in upper case below the loss's label, and the default determines their type. `from_taps`
    supplies the arguments without a default.

    Attributes:
        TERMS: names of the terms that `forward` returns, with their default weights.
        CHANNELWISE: whether a channel of the student is compared with the same channel of the
            teacher, without layers of the loss's own between them: of logits, class with class.
        DEFAULT_TAPS: (student's, teacher's) module paths where a config names none; with None a
            config must name them.
    """

    TERMS: ClassVar[Mapping[str, float]] = {}
    CHANNELWISE: ClassVar[bool] = False
    DEFAULT_TAPS: ClassVar[tuple[str, str] | None] = None

    @classmethod
    def from_taps(cls, student: TapShape, teacher: TapShape, **settings: Any) -> DistillationLoss:
        """Construct for maps of these shapes; losses with layers of their own override it.

        Raises:
            ValueError: settings or shapes don't fit.
        """
        return cls(**settings)

    @classmethod
    def check_settings(cls, **settings: Any) -> None:
        """Raise ValueError for settings that can't work, whatever the shapes.

        Losses whose constructor takes shapes override it.
        """
        with torch.random.fork_rng(devices=[]):  # layers draw their initial weights
            cls(**settings)

    def describe(self, student: TapShape, teacher: TapShape) -> LossDescription:
        """Figures and remarks on maps of these shapes, which ``tools/doctor.py`` shows."""
        return LossDescription()

    def compared(
        self, student: torch.Tensor, teacher: torch.Tensor, *, context: LossContext
    ) -> torch.Tensor:
        """The student's map as the loss compares it with the teacher's.

        Losses with layers of their own (align, projector) override it; analyses use it.

        Args:
            student: [N, Cs, h, w].
            teacher: [N, Ct, H, W].
            context: as in `forward`.

        Returns:
            [N, C, h', w']; the student's map itself where the loss has no layers.
        """
        return student

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        *,
        context: LossContext,
    ) -> dict[str, torch.Tensor]:
        """The unweighted terms, by the names of `TERMS`.

        Args:
            student: [N, Cs, h, w].
            teacher: [N, Ct, H, W]; gets no gradient.
            context: what only some losses need.

        Returns:
            a scalar for each term.
        """
        raise NotImplementedError
