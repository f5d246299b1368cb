"""How the teacher is run, and how what it says is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from afdcd.distill.encoding import Encoding
from afdcd.losses.settings import as_number
from afdcd.utils.problems import constructed, refuse

_KEY = "MODEL.DISTILLER.TEACHER"
# Of scales: less would leave nothing of a crop; more is refused when the teacher is scored
# (`afdcd.evaluation.settings`, a room that this one doesn't know).
_SMALLEST, _LARGEST = 0.1, 16.0
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
    """Which teacher there is, and how it is run.

    Attributes:
        config_file: of a teacher that this package or Detectron2 builds.
        name: of a model of other people's: see `afdcd.models.adapters`.
        logits_stride: of such a model's logits, in its images' pixels; 0 for as it gives them.
        classes: names of its classes, or the file or data set that has them; none when empty.
        class_map: (its name, the student's name or None) of classes whose names differ.
        match_classes: whether classes are matched by name, though neither is given.
        dtype: of its convolutions, one of `DTYPES`; empty for autocast's.
        resolution: of what it sees, in times the student's.
        scales, flip: over which its logits are averaged.
        others: config file and weights of the teachers whose logits are averaged with its own.
        record: where what it says is recorded.

    Raises:
        SettingsError: a value that can't work; lists all of them.
    """

    config_file: str = ""
    name: str = ""
    logits_stride: int = 0
    classes: tuple[str, ...] = ()
    class_map: tuple[tuple[str, str | None], ...] = ()
    match_classes: bool = False
    dtype: str = ""
    resolution: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    others: tuple[tuple[str, str], ...] = ()
    record: RecordSettings = field(default_factory=RecordSettings)

    def __post_init__(self) -> None:
        refuse(self._problems())

    @property
    def matches_classes(self) -> bool:
        """Whether losses of logits compare classes by name, rather than channel by channel."""
        return bool(self.name or self.classes or self.class_map or self.match_classes)

    def _problems(self) -> Iterator[str]:
        if self.name and self.config_file:
            yield (
                f"{_KEY} has both CONFIG_FILE {self.config_file} and NAME {self.name}: set one of "
                "them to ''"
            )
        if self.name and self.others:
            yield (
                f"{_KEY}.OTHERS are averaged with a teacher of a CONFIG_FILE, whose classes are "
                "the same channels: leave it empty beside NAME"
            )
        if self.logits_stride < 0:
            yield f"{_KEY}.LOGITS_STRIDE must be at least 0; got {self.logits_stride}"
        elif self.logits_stride and not self.name:
            yield (
                f"{_KEY}.LOGITS_STRIDE {self.logits_stride} is for other people's models, which "
                "NAME names: leave it at 0 beside CONFIG_FILE"
            )
        if not all(isinstance(name, str) and name for name in self.classes):
            yield f"{_KEY}.CLASSES are names (quote numbers and yes/no); got {list(self.classes)}"
        if not all(
            len(pair) == 2
            and isinstance(pair[0], str)
            and (pair[1] is None or isinstance(pair[1], str))
            for pair in self.class_map
        ):
            yield (
                f"{_KEY}.CLASS_MAP takes {{teacher's name: student's name, or null}} (quote "
                f"numbers and yes/no); got {[list(pair) for pair in self.class_map]}"
            )
        if self.dtype not in DTYPES:
            yield f"{_KEY}.DTYPE takes {', '.join(map(repr, DTYPES))}; got {self.dtype!r}"
        if not self.resolution > 0:  # how large it may be, afdcd.data.settings knows
            yield f"{_KEY}.RESOLUTION must be above 0; got {self.resolution}"
        if not self.scales or not all(_SMALLEST <= scale <= _LARGEST for scale in self.scales):
            yield (
                f"{_KEY}.SCALES are factors from {_SMALLEST:g} to {_LARGEST:g}, at least one; got "
                f"{list(self.scales)}"
            )
        if not all(len(pair) == 2 and all(pair) for pair in self.others):
            yield (
                f"{_KEY}.OTHERS takes [config file, weights] for each other teacher, such as "
                f"[[second.yaml, second.pth]]; got {[list(pair) for pair in self.others]}"
            )

    @classmethod
    def read(cls, node: Any) -> TeacherSettings:
        """From ``MODEL.DISTILLER.TEACHER``. Raises SettingsError."""
        problems = [
            f"{_KEY}.IMAGES.{key} is for other people's models, which NAME names: leave it out "
            "beside CONFIG_FILE"
            for key, value in node.IMAGES.items()
            if value and not node.NAME
        ]
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
                config_file=node.CONFIG_FILE,
                name=node.NAME,
                logits_stride=node.LOGITS_STRIDE,
                classes=tuple(node.CLASSES),
                class_map=tuple(
                    tuple(pair) if isinstance(pair, (list, tuple)) else (pair,)
                    for pair in node.CLASS_MAP
                ),
                match_classes=node.MATCH_CLASSES,
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
