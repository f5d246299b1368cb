"""Which of other people's models a name stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afdcd.models.adapters.images import ImageSettings
from afdcd.models.adapters.registry import ADAPTERS
from afdcd.utils.paths import expanded

KEY = "MODEL.DISTILLER.TEACHER.NAME"
SUFFIXES = {".pt2": "pt2", ".pt": "torchscript", ".ts": "torchscript"}
FUNCTION = "function"
EXAMPLES = (
    "hf:folder or hf:ORG/NAME, smp:folder or smp:ARCH/ENCODER, a file .pt2, .pt or .ts, "
    "package.module:function or file.py:function"
)


@dataclass(frozen=True)
class Source:
    """Where a model of other people's is, and what the config says of it.

    Attributes:
        name: as the config has it.
        kind: in `ADAPTERS`.
        place: the name without the kind, its path expanded: a folder, a file, or what else the
            kind takes.
        weights: a checkpoint of it; empty where there is none beside it.
        images: how it takes its images, as far as the config says.
        logits_stride: pixels for each position that its logits are averaged down to; 0 for none.
        image_format: channel order of the images that it will be given.
        config: of the run, for functions that take it.
    """

    name: str
    kind: str
    place: str
    weights: str = ""
    images: ImageSettings = field(default_factory=ImageSettings)
    logits_stride: int = 0
    image_format: str = "BGR"
    config: Any = None

    @property
    def folder(self) -> Path | None:
        """The folder that it is; None where it is none."""
        path = Path(self.place)
        return path if path.is_dir() else None


def read_source(name: str, **settings: Any) -> Source:
    """What a name stands for.

    Args:
        name: ``MODEL.DISTILLER.TEACHER.NAME``.
        settings: the other attributes of `Source`.

    Raises:
        ValueError: it stands for nothing that is known.
    """
    kind, colon, place = name.partition(":")
    if colon and kind in ADAPTERS:
        return Source(name, kind, expanded(place), **settings)
    if suffix := SUFFIXES.get(Path(name).suffix):
        return Source(name, suffix, expanded(name), **settings)
    if colon and place.isidentifier():
        return Source(name, FUNCTION, expanded(name), **settings)
    raise ValueError(
        f"{KEY} {name!r} names no model of a known kind: it takes {EXAMPLES} (kinds before a "
        f"colon: {', '.join(sorted(set(ADAPTERS.names()) - {*SUFFIXES.values(), FUNCTION}))})"
    )
