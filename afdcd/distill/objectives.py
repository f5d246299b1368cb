"""What is compared between student and teacher, and the sum of its weighted terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import nn

from afdcd.distill.classes import select_channels
from afdcd.distill.components import ComponentFit, PrincipalComponents
from afdcd.distill.grids import on_one_grid
from afdcd.distill.schedule import LossSchedule
from afdcd.distill.settings import KEY
from afdcd.distill.targets import Target
from afdcd.losses.registry import DistillationLoss, LossContext, TapShape
from afdcd.utils.seeds import MASKS, stream_seed


class FeatureSource(Protocol):
    """Feature maps by module path, or by a target's name: `FeatureTaps` or a dict."""

    def __getitem__(self, path: str, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Objective:
    """One loss on one pair of taps.

    Attributes:
        name: of its module among the distillation modules.
        student_tap, teacher_tap: module paths.
        weights: by term of the loss's dict. A term with weight 0 is still computed and reported.
        suffix: appended to the terms' names, to tell several pairs or losses apart.
        label: of the loss in the config, for errors; the name when empty.
        dims: principal components of the teacher's map to compare with; 0 for the map itself.
        schedule: the steps that it is used in.
        student_classes, teacher_classes: channels of the maps that are compared, where classes are
            matched by name; all when empty.
        corners: of two maps of logits, whether the positions of the student's and of the teacher's
            are those of ``align_corners=True``: see `on_one_grid`. Losses bring other maps to one
            size themselves.
    """

    name: str
    student_tap: str
    teacher_tap: str
    weights: Mapping[str, float]
    suffix: str = ""
    label: str = ""
    dims: int = 0
    schedule: LossSchedule = field(default_factory=LossSchedule)
    student_classes: tuple[int, ...] = ()
    teacher_classes: tuple[int, ...] = ()
    corners: tuple[bool, bool] | None = None

    @property
    def target(self) -> Target:
        """What of the teacher is compared."""
        return Target(self.teacher_tap, self.dims, self.teacher_classes)

    def student_shape(self, shape: TapShape) -> TapShape:
        """The shape of what of the student is compared, from that of its map."""
        return shape._replace(channels=len(self.student_classes) or shape.channels)

    def term_names(self) -> dict[str, str]:
        """The names that the terms are reported by: ``loss_<term><suffix>``."""
        return {term: f"loss_{term}{self.suffix}" for term in self.weights}


class Objectives(nn.Module):
    """The distillation modules (align, projector) and how their terms are weighted and summed.

    Args:
        objectives: what to compare.
        losses: a module for each objective, by its name. Must hold exactly the objectives' names.
        seed: of the losses' random draws (masks). Each step's draws are a function of it
            and of the number of steps so far, whatever the device and the number of processes. All
            losses draw from one generator, in the objectives' order.
        part: which part of a batch this process has, and of how many. Where this part is itself
            processed in parts, `take_part` says which one comes next.
        components: of the targets that have some, by `Target.name`.
        steps: of the whole run, for schedules.

    Raises:
        ValueError: names of ``objectives`` and ``losses`` differ, or two objectives or their terms
            have the same name; or a schedule takes the number of steps, which isn't known.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        losses: Mapping[str, DistillationLoss],
        *,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
        components: Mapping[str, PrincipalComponents] | None = None,
        steps: int = 0,
    ) -> None:
        super().__init__()
        names = [objective.name for objective in objectives]
        terms = [name for o in objectives for name in o.term_names().values()]
        for what, given in (("losses", names), ("terms", terms)):
            if repeated := sorted({name for name in given if given.count(name) > 1}):
                raise ValueError(
                    f"two {what} are called {', '.join(repeated)}: give the losses other labels"
                )
        if sorted(names) != sorted(losses):
            raise ValueError(f"objectives {names} and losses {list(losses)} must have equal names")
        self.objectives = tuple(objectives)
        for name in names:
            if hasattr(self, name):
                raise ValueError(f"a loss can't have the label {name!r}: choose another one")
            self.add_module(name, losses[name])
        for target in self.targets:
            if target.dims:
                self.add_module(target.module_name, (components or {})[target.name])
        if steps < 1 and any(o.schedule.depends_on_length for o in objectives):
            raise ValueError("SCHEDULE takes the number of the run's steps (SOLVER.MAX_ITER)")
        self._seed, self._part, self._steps = seed, part, 0
        self._length = steps
        self._portion = (0, 1)
        # What losses said beside their terms, by name; the mean over the parts of a step.
        self.figures: dict[str, torch.Tensor] = {}

    def take_part(self, index: int, count: int) -> None:
        """Say that the next call is on part ``index`` of ``count`` of this process's batch.

        The last part ends a step.
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

    @property
    def targets(self) -> list[Target]:
        """What of the teacher is compared, each once."""
        return list(dict.fromkeys(o.target for o in self.objectives))

    @property
    def part_index(self) -> int:
        """Which part of this process's batch comes next: see `take_part`."""
        return self._portion[0]

    def used_now(self) -> list[Objective]:
        """The objectives that the coming step uses."""
        return [o for o in self.objectives if self._factor(o)]

    def _factor(self, objective: Objective) -> float:
        return objective.schedule.factor(self._steps, self._length)

    # --- compact targets --------------------------------------------------------------------

    def components_of(self, target: Target) -> PrincipalComponents:
        """The components of a target that has some."""
        return cast(PrincipalComponents, self.get_submodule(target.module_name))

    def unfitted(self) -> list[Target]:
        """The targets whose components aren't known yet."""
        return [t for t in self.targets if t.dims and not self.components_of(t).fitted]

    def set_components(self, fits: Mapping[str, ComponentFit]) -> None:
        """Take the components of what was seen at each path of the teacher."""
        for target in self.unfitted():
            self.components_of(target).set(fits[target.path])

    def compress(
        self, features: Mapping[str, torch.Tensor], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """Targets by name, from the teacher's maps by path."""
        return {
            t.name: self.components_of(t)(features[t.path])
            if t.dims
            else select_channels(features[t.path], t.classes)
            for t in targets
        }

    # --- terms ------------------------------------------------------------------------------

    def loss_of(self, objective: Objective) -> DistillationLoss:
        """The module of an objective."""
        return cast(DistillationLoss, self.get_submodule(objective.name))

    def forward(
        self,
        student: FeatureSource,
        teacher: FeatureSource,
        batched_inputs: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, torch.Tensor]:
        """Every weighted term, as ``loss_<term><suffix>``.

        Losses whose schedule leaves the step out have none.

        Args:
            student: the feature maps at the taps.
            teacher: the targets, by name.
            batched_inputs: the samples that the maps show, for losses that use labels.

        Raises:
            ValueError: a loss returns terms other than those its class names.
        """
        seed = stream_seed(self._seed, MASKS, 0, self._steps)
        index, count = self._portion
        context = LossContext(
            generator=torch.Generator().manual_seed(seed),
            part=(self._part[0] * count + index, self._part[1] * count),
            step=self._steps,
            batched_inputs=tuple(batched_inputs),
        )
        if index == 0:
            self.figures = {}
        used = {objective.name: self._factor(objective) for objective in self.used_now()}
        if index == count - 1:
            self._steps += 1
        terms = {}
        for objective in self.objectives:
            if objective.name not in used:
                continue
            loss = self.loss_of(objective)
            figures: dict[str, torch.Tensor] = {}
            ours = select_channels(student[objective.student_tap], objective.student_classes)
            theirs = teacher[objective.target.name]
            if objective.corners is not None:
                ours, theirs = on_one_grid(ours, theirs, objective.corners)
            values = loss(ours, theirs, context=replace(context, figures=figures))
            for key, value in figures.items():
                name, share = f"{key}{objective.suffix}", value.detach().float() / count
                self.figures[name] = self.figures[name] + share if name in self.figures else share
            if values.keys() != objective.weights.keys():
                raise ValueError(
                    f"{type(loss).__name__} returned the terms {', '.join(values)}; its weights "
                    f"are for {', '.join(objective.weights)}: forward must return what TERMS names"
                )
            for term, name in objective.term_names().items():
                weight = objective.weights[term] * used[objective.name]
                terms[name] = weight * values[term]
        return terms

    def weight_keys(self) -> dict[str, str]:
        """The config key of the weight of each term, by the term's reported name."""
        return {
            name: f"{KEY}.{objective.label or objective.name}.{term.upper()}_WEIGHT"
            for objective in self.objectives
            for term, name in objective.term_names().items()
        }

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self._steps, "seed": self._seed}

    def set_extra_state(self, state: Mapping[str, int] | torch.Tensor) -> None:
        """Take what `get_extra_state` gave, or its numbers as a `Distiller` saves them."""
        if isinstance(state, torch.Tensor):
            state = dict(zip(("steps", "seed"), state.tolist(), strict=True))
        self._steps, self._seed = int(state["steps"]), int(state["seed"])

    def formula(self) -> str:
        """The sum in words, e.g. ``task + 1 * logit_kd + 2e-06 * reconstruction``."""
        terms = [
            f"{weight:g} * {term}{objective.suffix}"
            for objective in self.objectives
            for term, weight in objective.weights.items()
        ]
        return " + ".join(["task", *terms])
