"""How the teacher is run, and how what it says is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from afdcd.distill.encoding import Encoding
from afdcd.losses.settings import as_number
from afdcd.utils.problems import constructed, refuse

_KEY = "MODEL.DISTILLER.TEACHER"
DTYPES = {
    "": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class RecordSettings:
    """Where the recorded teacher is, and of which views.

    Attributes:
        folder: empty for none.
        views: augmented views of each training image.
        seed: of the views.
        encoding: of the maps.

    Raises:
        SettingsError: a value that can't work; lists all of them.
    """

    folder: str = ""
    views: int = 16
    seed: int = 0
    encoding: Encoding = field(default_factory=Encoding)

    def __post_init__(self) -> None:
        problems = []
        if self.views < 1:
            problems.append(f"{_KEY}.RECORD.VIEWS must be at least 1; got {self.views}")
        if self.seed < 0:
            problems.append(f"{_KEY}.RECORD.SEED must be 0 or more; got {self.seed}")
        refuse(problems)


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher is run.

    Attributes:
        dtype: of its convolutions, one of `DTYPES`; empty for autocast's.
        resolution: of what it sees, in times the student's.
        scales, flip: over which its logits are averaged.
        others: config file and weights of the teachers whose logits are averaged with its own.
        record: where what it says is recorded.

    Raises:
        SettingsError: a value that can't work; lists all of them.
    """

    dtype: str = ""
    resolution: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    others: tuple[tuple[str, str], ...] = ()
    record: RecordSettings = field(default_factory=RecordSettings)

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.dtype not in DTYPES:
            yield f"{_KEY}.DTYPE takes {', '.join(map(repr, DTYPES))}; got {self.dtype!r}"
        if not 0 < self.resolution < math.inf:
            yield f"{_KEY}.RESOLUTION must be above 0; got {self.resolution}"
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            yield f"{_KEY}.SCALES are factors above 0, at least one; got {list(self.scales)}"
        if not all(len(pair) == 2 and all(pair) for pair in self.others):
            yield (
                f"{_KEY}.OTHERS takes [config file, weights] for each other teacher, such as "
                f"[[second.yaml, second.pth]]; got {[list(pair) for pair in self.others]}"
            )

    @classmethod
    def read(cls, node: Any) -> TeacherSettings:
        """From ``MODEL.DISTILLER.TEACHER``. Raises SettingsError."""
        problems: list[str] = []
        others = node.OTHERS if isinstance(node.OTHERS, (list, tuple)) else [node.OTHERS]
        pairs = tuple(
            tuple(map(str, pair)) if isinstance(pair, (list, tuple)) else (str(pair),)
            for pair in others
        )
        stored = node.RECORD
        encoding = constructed(
            lambda: Encoding(dtype=stored.DTYPE, top_classes=stored.TOP_CLASSES), problems
        )
        record = constructed(
            lambda: RecordSettings(
                folder=stored.FOLDER,
                views=stored.VIEWS,
                seed=stored.SEED,
                encoding=encoding or Encoding(),
            ),
            problems,
        )
        made = constructed(
            lambda: cls(
                dtype=node.DTYPE,
                resolution=float(node.RESOLUTION),
                scales=tuple(as_number(scale, f"{_KEY}.SCALES") for scale in node.SCALES),
                flip=node.FLIP,
                others=pairs,  # type: ignore[arg-type]  # checked in __post_init__
                record=record or RecordSettings(),
            ),
            problems,
        )
        refuse(problems)
        assert made is not None
        return made
