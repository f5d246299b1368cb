"""How whole images are predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from afdcd.utils.problems import refuse

# Of an image's scales.
LARGEST = 16.0


@dataclass(frozen=True)
class InferenceSettings:
    """Scales, mirror images and windows of a prediction.

    Attributes:
        scales: factors of both sides whose outputs are averaged.
        flip: whether the outputs of mirrored images are averaged with them.
        window: (height, width) of sliding windows; empty for whole images.
        stride: (rows, columns) between windows; empty for two thirds of the window.

    Raises:
        SettingsError: a value that can't work.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        refuse(self._problems())

    @property
    def plain(self) -> bool:
        """Whether images are predicted once, whole and as they are."""
        return self.scales == (1.0,) and not self.flip and not self.window

    @property
    def steps(self) -> tuple[int, int]:
        """(rows, columns) between windows."""
        rows, columns = self.stride or (-(-side * 2 // 3) for side in self.window)
        return rows, columns

    def size_problem(self, height: int, width: int) -> str:
        """Whether nothing is left of an image of this size at one of the scales."""
        scale = min(self.scales)
        rows, columns = int(height * scale), int(width * scale)
        if min(rows, columns) > 0:
            return ""
        return (
            f"an image of {height}x{width} pixels is too small for TEST.SCALES {scale:g}, which "
            f"makes it {rows}x{columns}: leave it out, or use larger scales"
        )

    def _problems(self) -> Iterator[str]:
        if not self.scales or not all(_is_scale(scale) for scale in self.scales):
            most = f"at most {LARGEST:g}"
            yield f"TEST.SCALES must be factors above 0 and {most}; got {list(self.scales)}"
        for key, sides in (("TEST.WINDOW", self.window), ("TEST.WINDOW_STRIDE", self.stride)):
            if len(sides) not in (0, 2) or not all(_is_size(side) for side in sides):
                text = f"{key} must be two whole numbers above 0 (rows, columns), or []"
                yield f"{text}; got {list(sides)}"
                return
        if self.stride and not self.window:
            yield "TEST.WINDOW_STRIDE is set, but TEST.WINDOW is not"
        elif any(step > side for step, side in zip(self.stride, self.window, strict=False)):
            yield (
                f"TEST.WINDOW_STRIDE {list(self.stride)} must be at most TEST.WINDOW "
                f"{list(self.window)}, or pixels between windows would be left out"
            )


def _is_scale(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 < value <= LARGEST


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
