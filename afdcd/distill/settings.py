"""The settings of a distiller: its losses, with their taps, weights and settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afdcd.distill.schedule import LossSchedule
from afdcd.distill.targets import is_logits
from afdcd.distill.teacher_settings import TeacherSettings
from afdcd.losses.registry import LOSSES, DistillationLoss
from afdcd.losses.settings import as_number, as_setting, loss_defaults
from afdcd.utils.problems import SettingsError, collect, nearest_hint

# Where the losses stand in a config, for errors.
KEY = "MODEL.DISTILLER.LOSSES"
NO_LOSS = (
    f"{KEY} names no loss: it takes labels with losses, such as "
    "{afdcd: {NAME: afdcd, CONTRAST_WEIGHT: 0.005}}"
)
# Which images of a batch are compared.
IMAGES = ("all", "unlabeled")
_LABEL = re.compile(r"[A-Za-z]\w*", re.ASCII)
_WEIGHT = "_weight"


@dataclass(frozen=True)
class LossSettings:
    """One loss of a distiller.

    Attributes:
        label: name of its module, with a suffix for each of several pairs; consists of letters,
            digits and ``_``.
        name: in `afdcd.losses.LOSSES`; the label when empty.
        taps: pairs of the student's and the teacher's module paths, a loss module for each; the
            loss's own default when empty.
        factors: of all terms, one for each pair; or one for all of them.
        weights: by term; the loss's defaults where missing.
        arguments: the loss's settings, by the constructor's names; the loss's defaults where
            missing.
        dims: principal components of the teacher's map that it is compared by; 0 for the map
            itself. See `afdcd.distill.components`.
        schedule: the steps that it is used in.

    Raises:
        SettingsError: settings that can't work; lists all of them.
    """

    label: str
    name: str = ""
    taps: tuple[tuple[str, str], ...] = ()
    factors: tuple[float, ...] = (1.0,)
    weights: Mapping[str, float] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dims: int = 0
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        where = f"{KEY}.{self.label}"
        if not isinstance(self.label, str) or not _LABEL.fullmatch(self.label):
            raise SettingsError(
                [f"a label of {KEY} is a word of letters, digits and _; got {self.label!r}"]
            )
        object.__setattr__(self, "name", self.name or self.label)
        if problems := collect(lambda: LOSSES.get(self.name)):
            raise SettingsError([f"{where}.NAME: {text}" for text in problems])
        default = self.kind.DEFAULT_TAPS
        object.__setattr__(self, "taps", self.taps or ((default,) if default else ()))
        problems = [*self._tap_problems(where), *self._weight_problems(where)]
        problems += self._dims_problems(where)
        object.__setattr__(self, "weights", {**self.kind.TERMS, **self.weights})
        problems += self._read_arguments(where)
        if not problems:
            found = collect(lambda: self.kind.check_settings(**self.arguments))
            problems = [f"{where}: {text}" for text in found]
        if problems:
            raise SettingsError(problems)
        if len(self.factors) == 1:
            object.__setattr__(self, "factors", self.factors * len(self.taps))

    @property
    def kind(self) -> type[DistillationLoss]:
        """The loss's class."""
        return LOSSES.get(self.name)

    def _tap_problems(self, where: str) -> list[str]:
        if not self.taps:
            return [
                f"{where} has no TAPS, and {self.name!r} no default pair: name one such as "
                "[[backbone.res5, backbone.res5]]"
            ]
        for pair in self.taps:
            is_pair = isinstance(pair, list | tuple) and len(pair) == 2
            if not is_pair or not all(isinstance(path, str) and path for path in pair):
                return [
                    f"{where}.TAPS: a pair of taps is [student's module path, teacher's module "
                    "path], in a list of pairs such as [[backbone.res5, backbone.res5]]; got "
                    f"{pair!r}"
                ]
        return []

    def _dims_problems(self, where: str) -> list[str]:
        if self.dims < 0:
            return [f"{where}.DIMS is a number of components, 0 for none; got {self.dims}"]
        if self.dims and any(is_logits(path) for pair in self.taps for path in pair):
            return [
                f"{where}.DIMS: logits are compared class by class, not by components; got "
                f"{self.dims} for {self.taps[0][1]}"
            ]
        return []

    def _weight_problems(self, where: str) -> list[str]:
        problems = [
            f"{where}: {self.name!r} has no term {term!r}; {nearest_hint(term, self.kind.TERMS)}"
            for term in self.weights
            if term not in self.kind.TERMS
        ]
        weights = [("WEIGHT", value) for value in self.factors]
        weights += [(f"{term}{_WEIGHT}".upper(), value) for term, value in self.weights.items()]
        problems += [
            f"{where}.{key} must be 0 or more; got {value}"
            for key, value in weights
            if not 0 <= value < math.inf
        ]
        if len(self.factors) not in (1, len(self.taps)):
            problems.append(
                f"{where}.WEIGHT has {len(self.factors)} factors for {len(self.taps)} pairs of "
                "taps: it takes one number for all, or one for each"
            )
        return problems

    def _read_arguments(self, where: str) -> list[str]:
        """Convert the arguments to their types, and return what is wrong with them."""
        problems = collect(lambda: loss_defaults(self.kind))
        if problems:
            return problems
        defaults = loss_defaults(self.kind)
        arguments = {}
        for name, value in self.arguments.items():
            key = f"{where}.{name.upper()}"
            if name not in defaults:
                hint = nearest_hint(name.upper(), [known.upper() for known in defaults])
                problems.append(f"there is no setting {key}; {hint}")
                continue
            try:
                arguments[name] = as_setting(value, defaults[name], key)
            except ValueError as error:
                problems.append(str(error))
        object.__setattr__(self, "arguments", arguments)
        return problems

    @classmethod
    def read(cls, label: str, content: Any) -> LossSettings:
        """Read a loss as it stands in a config, below its label.

        Args:
            label: of the loss.
            content: ``NAME``, ``TAPS``, ``WEIGHT``, ``<TERM>_WEIGHT`` for each term, ``DIMS``,
                ``SCHEDULE``, and the loss's settings in upper case.

        Raises:
            SettingsError: everything that is wrong with it.
        """
        where = f"{KEY}.{label}"
        if not isinstance(content, Mapping):
            raise SettingsError(
                [
                    f"{where} takes a loss's keys, such as {{NAME: {label}, WEIGHT: 1.0}}, or null "
                    f"for no loss; got {content!r}"
                ]
            )
        name = content.get("NAME", label)
        if problems := collect(lambda: LOSSES.get(name)):
            raise SettingsError([f"{where}.NAME: {text}" for text in problems])
        kind: type[DistillationLoss] = LOSSES.get(name)
        problems = collect(lambda: loss_defaults(kind))
        if problems:
            raise SettingsError(problems)
        terms = {f"{term}{_WEIGHT}".upper(): term for term in kind.TERMS}
        settings = {known.upper(): known for known in loss_defaults(kind)}
        known = ["NAME", "TAPS", "WEIGHT", "DIMS", "SCHEDULE", *terms, *settings]
        values: dict[str, Any] = {"label": label, "name": name, "weights": {}, "arguments": {}}

        def take(key: Any, value: Any) -> None:
            if key not in known:
                raise ValueError(
                    f"there is no setting {where}.{key}; {nearest_hint(str(key), known)}"
                )
            if key == "TAPS":
                values["taps"] = _pairs(value, f"{where}.TAPS")
            elif key == "WEIGHT":
                given = value if isinstance(value, list | tuple) else [value]
                values["factors"] = tuple(as_number(v, f"{where}.WEIGHT") for v in given)
            elif key == "DIMS":
                values["dims"] = as_setting(value, 0, f"{where}.DIMS")
            elif key == "SCHEDULE":
                values["schedule"] = LossSchedule.read(value, f"{where}.SCHEDULE")
            elif key in terms:
                values["weights"][terms[key]] = as_number(value, f"{where}.{key}")
            elif key in settings:
                values["arguments"][settings[key]] = value

        problems = collect(*(_call(take, key, value) for key, value in content.items()))
        made: list[LossSettings] = []
        problems += collect(lambda: made.append(cls(**values)))
        if problems:
            raise SettingsError(problems)
        return made[0]


@dataclass(frozen=True)
class DistillerSettings:
    """What a distiller compares, and how it is trained.

    Attributes:
        losses: at least one.
        clip_gradients: L2 norm to which the gradients of the distillation modules alone are
            clipped; 0 for no clipping.
        lr_factor: learning rate of the distillation modules, as a multiple of the student's.
        images: which of a batch are compared, one of `IMAGES`.
        teacher: how it is run, and recorded.

    Raises:
        SettingsError: settings that can't work; lists all of them.
    """

    losses: tuple[LossSettings, ...]
    clip_gradients: float = 15.0
    lr_factor: float = 1.0
    images: str = IMAGES[0]
    teacher: TeacherSettings = field(default_factory=TeacherSettings)

    def __post_init__(self) -> None:
        problems = []
        if not self.losses:
            problems.append(NO_LOSS)
        labels = [loss.label for loss in self.losses]
        problems += [
            f"{KEY} has the label {label!r} twice"
            for label in set(labels)
            if labels.count(label) > 1
        ]
        if not 0 <= self.clip_gradients < math.inf:
            problems.append(
                f"MODEL.DISTILLER.CLIP_GRADIENTS must be 0 or more; got {self.clip_gradients}"
            )
        if not 0 < self.lr_factor < math.inf:
            problems.append(
                f"MODEL.DISTILLER.LR_FACTOR must be above 0 and finite; got {self.lr_factor}"
            )
        if self.images not in IMAGES:
            problems.append(
                f"MODEL.DISTILLER.IMAGES takes {' or '.join(IMAGES)}; got {self.images!r}"
            )
        if problems:
            raise SettingsError(problems)

    @property
    def unlabeled_only(self) -> bool:
        """Whether labelled images aren't compared."""
        return self.images == "unlabeled"

    @property
    def compares_classes(self) -> bool:
        """Whether a loss compares logits, class with class."""
        return any(
            loss.kind.CHANNELWISE and all(is_logits(path) for path in pair)
            for loss in self.losses
            for pair in loss.taps
        )


def read_losses(content: Any) -> tuple[LossSettings, ...]:
    """The losses of a config's ``MODEL.DISTILLER.LOSSES``, in its order; null stands for none.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    if not isinstance(content, Mapping):
        raise SettingsError([f"{NO_LOSS}; got {content!r}"])
    losses: list[LossSettings] = []
    problems = []
    for label, values in content.items():
        if values is None:
            continue
        unnamed = isinstance(values, Mapping) and "NAME" not in values
        if unnamed and label not in LOSSES:
            others = [other for other in content if other != label]
            problems.append(
                f"{KEY}.{label} has no NAME, and no loss is called {label!r}; "
                + nearest_hint(str(label), [*map(str, others), *LOSSES.names()])
            )
            continue
        problems += collect(_call(_append, losses, label, values))
    if problems:
        raise SettingsError(problems)
    if not losses:
        raise SettingsError([NO_LOSS])
    return tuple(losses)


def _append(losses: list[LossSettings], label: str, values: Any) -> None:
    losses.append(LossSettings.read(label, values))


def _call(function: Callable[..., object], *args: Any) -> Callable[[], object]:
    return lambda: function(*args)


def _pairs(value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(
            f"{key} takes a list of pairs such as [[backbone.res5, backbone.res5]]; got {value!r}"
        )
    if not value:
        raise ValueError(f"{key} is empty: leave it out for the loss's default pair, or name one")
    return tuple(tuple(pair) if isinstance(pair, list | tuple) else pair for pair in value)
