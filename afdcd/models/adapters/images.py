"""How a model takes its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from afdcd.utils.problems import refuse

KEY = "MODEL.DISTILLER.TEACHER.IMAGES"


@dataclass(frozen=True)
class ImageSettings:
    """How a model takes its images; what is empty or 0 isn't known.

    Attributes:
        format: order of the channels, ``RGB`` or ``BGR``.
        mean, std: of each channel, in this order and in 0..255: the model sees
            ``(image - mean) / std``.
        multiple: of which height and width must be multiples.
        size: the one height and width that it takes; empty where it takes others.

    Raises:
        SettingsError: a value that can't work; lists all of them.
    """

    format: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    multiple: int = 0
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.format not in ("", "RGB", "BGR"):
            problems.append(f"{KEY}.FORMAT is RGB or BGR; got {self.format!r}")
        for key, values in (("PIXEL_MEAN", self.mean), ("PIXEL_STD", self.std)):
            if len(values) not in (0, 3):
                problems.append(f"{KEY}.{key} takes three numbers; got {list(values)}")
        if any(value <= 0 for value in self.std):
            problems.append(f"{KEY}.PIXEL_STD must be above 0; got {list(self.std)}")
        if self.multiple < 0:
            problems.append(f"{KEY}.MULTIPLE must be 0 or more; got {self.multiple}")
        whole = all(isinstance(side, int) and side > 0 for side in self.size)
        if len(self.size) not in (0, 2) or not whole:
            problems.append(f"{KEY}.SIZE takes [height, width]; got {list(self.size)}")
        elif any(side % max(self.multiple, 1) for side in self.size):
            problems.append(
                f"{KEY}.SIZE {list(self.size)} must be multiples of {self.multiple} (MULTIPLE)"
            )
        refuse(problems)

    def over(self, defaults: ImageSettings) -> ImageSettings:
        """These settings, with what isn't known of them as ``defaults`` have it."""
        names = [field.name for field in fields(self)]
        return ImageSettings(**{n: getattr(self, n) or getattr(defaults, n) for n in names})

    @classmethod
    def read(cls, node: Any) -> ImageSettings:
        """From ``MODEL.DISTILLER.TEACHER.IMAGES``. Raises SettingsError."""
        return cls(
            format=node.FORMAT,
            mean=_numbers(node.PIXEL_MEAN, "PIXEL_MEAN"),
            std=_numbers(node.PIXEL_STD, "PIXEL_STD"),
            multiple=node.MULTIPLE,
            size=tuple(node.SIZE),
        )


def _numbers(values: Sequence[Any], key: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{KEY}.{key} takes three numbers; got {list(values)}") from error


# What most networks are trained with.
IMAGENET = ImageSettings("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), multiple=1)
