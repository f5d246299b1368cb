"""How a teacher's maps are stored: in float16, in int8 with scales, or by the likeliest classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from afdcd.distill.targets import Target, is_logits
from afdcd.utils.problems import SettingsError

RECORD_DTYPES = ("int8", "float16")
# Names of a target's tensors after the target's own.
_VALUES, _SCALE, _CLASSES = "", "|scale", "|classes"
_HALF_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Encoding:
    """Turns a map [C, H, W] into small tensors and back.

    Logits are always in float16, or, where ``top_classes`` is above 0, as the logarithms of the
    probabilities of that many of the likeliest classes at each position, and of all the others
    together, which share it equally when they are read. (So the probabilities are exact, except
    for rounding, for the likeliest classes; with a temperature other than 1 those of the others
    are an approximation.)

    With int8 each channel of a view has a scale of its own: its largest absolute value divided by
    127. An error is at most half of it.

    Attributes:
        dtype: of feature maps and components, one of `RECORD_DTYPES`.
        top_classes: of logits; 0 for all.

    Raises:
        SettingsError: a value that can't work.
    """

    dtype: str = "int8"
    top_classes: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.dtype not in RECORD_DTYPES:
            problems.append(
                "MODEL.DISTILLER.TEACHER.RECORD.DTYPE takes "
                f"{', '.join(RECORD_DTYPES)}; got {self.dtype!r}"
            )
        if self.top_classes < 0:
            problems.append(
                "MODEL.DISTILLER.TEACHER.RECORD.TOP_CLASSES is a number of classes, 0 for all; got "
                f"{self.top_classes}"
            )
        if problems:
            raise SettingsError(problems)

    def encode(self, target: Target, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors, by name, of a target's map [C, H, W]."""
        name, features = target.name, features.detach().float()
        if is_logits(target.path):
            if 0 < self.top_classes < len(features) - 1:
                return self._top(name, features)
            return {name: _half(features)}
        if self.dtype == "float16":
            return {name: _half(features)}
        scale = features.abs().amax((1, 2)) / 127
        scale = torch.where(scale > 0, scale, 1.0)
        values = (features / scale[:, None, None]).round().to(torch.int8)
        return {name: values, name + _SCALE: scale}

    def _top(self, name: str, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        logs = logits.log_softmax(0)
        top, classes = logs.topk(self.top_classes, dim=0)
        others = (1 - top.exp().sum(0)).clamp(min=torch.finfo(torch.float16).tiny).log()
        small = torch.uint8 if len(logits) <= 256 else torch.int16
        values = torch.cat([top, others[None]])
        return {name: _half(values), name + _CLASSES: classes.to(small)}

    def decode(
        self, target: Target, channels: int, tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The map [C, H, W] in float32, on the tensors' device.

        Args:
            target: whose.
            channels: C.
            tensors: as `encode` gave them, perhaps among others.
        """
        name = target.name
        values = tensors[name].float()
        if name + _SCALE in tensors:
            return values * tensors[name + _SCALE][:, None, None]
        if name + _CLASSES in tensors:
            classes = tensors[name + _CLASSES].long()
            top, others = values[:-1], values[-1:]
            rest = torch.tensor(float(channels - len(top)), device=values.device).log()
            return (others - rest).repeat(channels, 1, 1).scatter(0, classes, top)
        return values

    def bytes_of(self, target: Target, channels: int, height: int, width: int) -> int:
        """Bytes of a view's tensors."""
        positions = height * width
        if is_logits(target.path):
            if 0 < self.top_classes < channels - 1:
                index = 1 if channels <= 256 else 2
                return positions * (2 * (self.top_classes + 1) + index * self.top_classes)
            return 2 * channels * positions
        return channels * (positions + 4) if self.dtype == "int8" else 2 * channels * positions


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-_HALF_MAX, _HALF_MAX).half()
