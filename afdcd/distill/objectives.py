"""What is compared between student and teacher, by which loss and with which weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from afdcd.losses import AfDCDLoss, LogitKDLoss
from afdcd.losses.afdcd.masks import make_mask
from afdcd.utils.seeds import MASKS, stream_seed

LOSSES = ("logit_kd", "afdcd")


class FeatureSource(Protocol):
    """Feature maps by module path: `FeatureTaps` or a dict."""

    def __getitem__(self, path: str, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Objective:
    """One loss on one pair of taps.

    Attributes:
        name: of its module among the distillation modules.
        student_tap, teacher_tap: module paths.
        weights: by term of the loss's dict. A term with weight 0 is still computed and reported.
        suffix: appended to the terms' names, to tell several pairs apart.
    """

    name: str
    student_tap: str
    teacher_tap: str
    weights: Mapping[str, float]
    suffix: str = ""


class Objectives(nn.Module):
    """The distillation modules (align, projector) and how their terms are weighted and summed.

    Args:
        objectives: what to compare.
        losses: a module for each objective, by its name, from (student, teacher) maps to a dict of
            unweighted scalars. Must hold exactly the objectives' names.
        seed: of the random masks. Each step's masks are a function of it and of the number of
            steps so far, whatever the device and the number of processes.
        part: which part of a batch this process has, and of how many. Where this part is itself
            worked on in parts, `take_part` says which one comes next.

    Raises:
        ValueError: names of ``objectives`` and ``losses`` differ.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        losses: Mapping[str, nn.Module],
        *,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        names = [objective.name for objective in objectives]
        if sorted(names) != sorted(losses):
            raise ValueError(f"objectives {names} and losses {list(losses)} must have equal names")
        self.objectives = tuple(objectives)
        for name in names:
            self.add_module(name, losses[name])
        self._seed, self._part, self._steps = seed, part, 0
        self._portion = (0, 1)

    def take_part(self, index: int, count: int) -> None:
        """Say that the next call is on part ``index`` of ``count`` of this process's batch.

        A step is over with its last part.
        """
        self._portion = (index, count)

    @property
    def student_taps(self) -> list[str]:
        """Module paths in the student, each once."""
        return list(dict.fromkeys(o.student_tap for o in self.objectives))

    @property
    def teacher_taps(self) -> list[str]:
        """Module paths in the teacher, each once."""
        return list(dict.fromkeys(o.teacher_tap for o in self.objectives))

    def forward(self, student: FeatureSource, teacher: FeatureSource) -> dict[str, torch.Tensor]:
        """Every weighted term, as ``loss_<term><suffix>``."""
        seed = stream_seed(self._seed, MASKS, 0, self._steps)
        generator = torch.Generator().manual_seed(seed)
        index, count = self._portion
        part = self._part[0] * count + index, self._part[1] * count
        if index == count - 1:
            self._steps += 1
        terms = {}
        for objective in self.objectives:
            loss = self.get_submodule(objective.name)
            pair = student[objective.student_tap], teacher[objective.teacher_tap]
            if isinstance(loss, AfDCDLoss):
                mask = make_mask(
                    loss.mask,
                    pair[1],
                    ratio=loss.mask_ratio,
                    generator=generator,
                    part=part,
                    device="cpu",
                )
                values = loss(*pair, mask=mask, generator=generator, part=part)
            else:
                values = loss(*pair)
            for term, value in values.items():
                terms[f"loss_{term}{objective.suffix}"] = objective.weights[term] * value
        return terms

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self._steps, "seed": self._seed}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self._steps, self._seed = int(state["steps"]), int(state["seed"])

    def formula(self) -> str:
        """The sum in words, e.g. ``task + 1 * logit_kd + 2e-06 * reconstruction``."""
        terms = [
            f"{weight:g} * {term}{objective.suffix}"
            for objective in self.objectives
            for term, weight in objective.weights.items()
        ]
        return " + ".join(["task", *terms])


def objectives_from_config(
    cfg: Any,
    shapes: Mapping[tuple[str, str], tuple[int, int, int]],
    *,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Objectives:
    """Build the objectives that ``MODEL.DISTILLER`` names.

    Args:
        cfg: the config.
        shapes: channels, height and width of each tap for a training image, by (``student`` or
            ``teacher``, path).
        seed, part: see `Objectives`.

    Raises:
        ValueError: an unknown loss, or settings that don't fit the taps.
    """
    settings = cfg.MODEL.DISTILLER
    check_distiller_settings(cfg)
    objectives: list[Objective] = []
    losses: dict[str, nn.Module] = {}
    if "logit_kd" in settings.LOSSES:
        objectives.append(
            Objective(
                name="logit_kd",
                student_tap=settings.LOGIT_TAPS[0],
                teacher_tap=settings.LOGIT_TAPS[1],
                weights={"logit_kd": cfg.MODEL.LOGIT_KD.WEIGHT},
            )
        )
        losses["logit_kd"] = LogitKDLoss(cfg.MODEL.LOGIT_KD.TEMPERATURE)
    if "afdcd" in settings.LOSSES:
        pairs = [(student, teacher) for student, teacher in settings.FEATURE_TAPS]
        factors = list(settings.FEATURE_TAP_WEIGHTS) or [1.0] * len(pairs)
        for (student, teacher), factor, suffix in zip(
            pairs, factors, _suffixes(pairs), strict=True
        ):
            name = f"afdcd{suffix}"
            weights = {
                "reconstruction": factor * cfg.MODEL.AFDCD.RECONSTRUCTION.WEIGHT,
                "contrast": factor * cfg.MODEL.AFDCD.CONTRAST.WEIGHT,
            }
            objectives.append(Objective(name, student, teacher, weights, suffix))
            try:
                loss = AfDCDLoss(
                    shapes["student", student][0],
                    shapes["teacher", teacher][0],
                    **afdcd_settings(cfg),
                )
                loss.check_fit(*shapes["teacher", teacher][1:])
                losses[name] = loss
            except ValueError as error:
                raise ValueError(f"MODEL.AFDCD on {student} -> {teacher}: {error}") from error
    return Objectives(objectives, losses, seed=seed, part=part)


def afdcd_settings(cfg: Any) -> dict[str, Any]:
    """`AfDCDLoss` arguments, channels aside, from ``MODEL.AFDCD``."""
    node = cfg.MODEL.AFDCD
    return {
        "mask": node.RECONSTRUCTION.MASK,
        "mask_ratio": node.RECONSTRUCTION.MASK_RATIO,
        "projector": node.RECONSTRUCTION.PROJECTOR,
        "kind": node.CONTRAST.KIND,
        "groups": node.CONTRAST.GROUPS,
        "patch": tuple(node.CONTRAST.PATCH),
        "pool": node.CONTRAST.POOL,
        "temperature": node.CONTRAST.TEMPERATURE,
        "distance": node.CONTRAST.DISTANCE,
        "reduction": node.REDUCTION,
        "sample": node.SAMPLE,
        "kernel": node.CONTRAST.KERNEL,
        "masked_conv": node.RECONSTRUCTION.MASKED_CONV,
        "recompute": node.RECONSTRUCTION.RECOMPUTE,
    }


def check_distiller_settings(cfg: Any) -> None:
    """Raise ValueError for what is wrong in ``MODEL.DISTILLER`` whatever the models are."""
    settings = cfg.MODEL.DISTILLER
    unknown = [name for name in settings.LOSSES if name not in LOSSES]
    if unknown or not settings.LOSSES:
        raise ValueError(
            f"MODEL.DISTILLER.LOSSES takes some of {', '.join(LOSSES)}; got {list(settings.LOSSES)}"
        )
    if not settings.LR_FACTOR > 0:
        raise ValueError(f"MODEL.DISTILLER.LR_FACTOR must be above 0; got {settings.LR_FACTOR}")
    pairs = settings.FEATURE_TAPS
    for pair in [*pairs, settings.LOGIT_TAPS]:
        if len(pair) != 2 or not all(isinstance(path, str) and path for path in pair):
            raise ValueError(
                "a pair of taps is [student's module path, teacher's module path], e.g. "
                f"[backbone.res5, backbone.res5]; got {pair!r}"
            )
    if "afdcd" in settings.LOSSES and not pairs:
        raise ValueError("MODEL.DISTILLER.FEATURE_TAPS is empty: the loss 'afdcd' needs a pair")
    factors = settings.FEATURE_TAP_WEIGHTS
    if factors and len(factors) != len(pairs):
        raise ValueError(
            f"MODEL.DISTILLER.FEATURE_TAP_WEIGHTS has {len(factors)} factors for {len(pairs)} "
            "pairs of FEATURE_TAPS"
        )


def _suffixes(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Nothing for one pair; else the last words of the student's paths, numbered if equal."""
    if len(pairs) == 1:
        return [""]
    words = [student.rpartition(".")[2] for student, _ in pairs]
    if len(set(words)) < len(words):
        words = [f"{word}_{index}" for index, word in enumerate(words)]
    return [f"_{word}" for word in words]
