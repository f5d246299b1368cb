"""The meta-architecture: a student, a frozen teacher, and what is compared between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from afdcd.distill.components import ComponentFit
from afdcd.distill.grids import corners_on_corners
from afdcd.distill.objectives import Objectives
from afdcd.distill.record import TeacherRecord
from afdcd.distill.taps import FeatureTaps
from afdcd.distill.targets import KeptTargets, Target, is_logits
from afdcd.distill.teacher import FrozenTeacher
from afdcd.losses.registry import TapShape
from afdcd.utils.memory_format import format_module
from afdcd.utils.sample_keys import UNLABELED


class Distiller(nn.Module):
    """Trains ``student`` with the help of a teacher; evaluates as the student alone.

    Submodules are ``student`` and ``distiller`` (align, projector), so the optimizer and
    DistributedDataParallel see these and not the teacher. `load_state_dict` takes the plain
    student's names as well, so that its checkpoints can be loaded by any script, and refuses with
    ValueError a state dict of which nothing fits.

    Args:
        student: in Detectron2's protocol.
        teacher: frozen; not a submodule. None where all that it says is recorded.
        objectives: what is compared.
        record: of the teacher, where there is one.
        format_student: keep the student's weights in the memory format of their device (see
            `afdcd.utils.memory_format`), wherever they are moved; for students that take either
            format. The objectives' weights are always kept so.
        unlabeled_only: compare images without labels alone; in batches without any, all of them.

    Attributes:
        record: of the teacher; None where there is none.
        teacher_shapes: of the teacher's taps for a training image, by path.

    Raises:
        TapError: a tap doesn't exist in its model.
        ValueError: there is neither a teacher nor a record.
    """

    _teacher: FrozenTeacher | None

    def __init__(
        self,
        student: nn.Module,
        teacher: FrozenTeacher | None,
        objectives: Objectives,
        *,
        record: TeacherRecord | None = None,
        format_student: bool = True,
        unlabeled_only: bool = False,
    ) -> None:
        super().__init__()
        FeatureTaps(student, objectives.student_taps, whose="the student")
        if teacher is not None:
            FeatureTaps(teacher.model, objectives.teacher_taps, whose="the teacher")
        elif record is None:
            raise ValueError("a distiller takes a teacher, or the record of one")
        self.record = record
        self.teacher_shapes: dict[str, TapShape] = {}
        self.student = student
        self.distiller = objectives
        object.__setattr__(self, "_teacher", teacher)
        self.unlabeled_only = unlabeled_only
        self._kept = KeptTargets()
        self._idle: list[nn.Parameter] = []
        self.register_load_state_dict_pre_hook(_take_plain_names)
        self.register_state_dict_post_hook(_hold_tensors_alone)
        self._formatted = ("student", "distiller") if format_student else ("distiller",)
        self._format()

    @property
    def figures(self) -> dict[str, torch.Tensor]:
        """What losses said of the last forward pass beside their terms: see `LossContext`."""
        return self.distiller.figures

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher's model. Raises OSError where it isn't loaded."""
        return self.live.model

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher is loaded: not where all that it says is recorded."""
        return self._teacher is not None

    @property
    def live(self) -> FrozenTeacher:
        """The frozen teacher.

        Raises:
            OSError: it isn't loaded, since all was recorded, but a file of the record is damaged.
        """
        if self._teacher is None:
            raise OSError(
                "a view isn't recorded, or its file is damaged, and the teacher isn't loaded: go "
                "on with --resume, which loads it"
            )
        return self._teacher

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """In training the student's losses and every weighted distillation term, by name.

        In evaluation, whatever the student returns.

        Raises:
            ValueError: a distillation term has the name of one of the student's losses.
        """
        if not self.training:
            return self.student(batched_inputs)
        used = self.distiller.used_now()
        paths = list(dict.fromkeys(o.student_tap for o in used))
        with FeatureTaps(self.student, paths, whose="the student") as taps:
            losses = dict(self.student(batched_inputs))
        if all(item.get(UNLABELED) for item in batched_inputs):
            losses = self._nothing(losses)
        targets = list(dict.fromkeys(o.target for o in used))
        idle = self._idle = self._idle_parameters([o.name for o in used])
        compared, maps = batched_inputs, {path: taps[path] for path in paths}
        if numbers := self._compared(batched_inputs):
            compared = [batched_inputs[number] for number in numbers]
            maps = {path: features[numbers] for path, features in maps.items()}
        terms = self.distiller(maps, self.targets(compared, targets), compared)
        if shared := losses.keys() & terms.keys():
            raise ValueError(f"the student already has losses called {', '.join(sorted(shared))}")
        if idle:
            # DistributedDataParallel waits for a gradient of every parameter.
            first = next(iter(losses))
            losses[first] = losses[first] + 0.0 * torch.stack([p.sum() for p in idle]).sum()
        return losses | terms

    def _compared(self, batched_inputs: list[dict[str, Any]]) -> list[int]:
        """The places of the samples that are compared; empty for all of them."""
        if not self.unlabeled_only:
            return []
        return [n for n, item in enumerate(batched_inputs) if item.get(UNLABELED)]

    def _nothing(self, losses: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses of 0 in place of those of a task without labels, which a head may divide by 0.

        Their gradient is 0, too, but there is one: processes and the optimizer go on as ever.
        """
        parameters = [p for p in self.student.parameters() if p.requires_grad]
        nothing = 0.0 * torch.stack([p.sum() for p in parameters]).sum()
        return dict.fromkeys(losses, nothing)

    def targets(
        self, batched_inputs: list[dict[str, Any]], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        """What the losses compare the student with, by `Target.name`, without gradients.

        Args:
            batched_inputs: the samples.
            targets: some of the objectives'; without any, the teacher isn't run.
        """
        if not targets:
            return {}
        part = self.distiller.part_index
        kept = self._kept.get(batched_inputs, part, [target.name for target in targets])
        if kept is None:
            kept = self._computed(batched_inputs, targets)
            self._kept.put(batched_inputs, part, kept)
        return kept

    def _computed(
        self, batched_inputs: list[dict[str, Any]], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        if self.distiller.unfitted():
            self.fit_components([batched_inputs])  # where no trainer has done so
        if self.record is not None:
            return self.record.gather(batched_inputs, targets, self._computed_alone)
        return self._live_targets(batched_inputs, targets)

    def _live_targets(
        self, batched_inputs: list[dict[str, Any]], targets: Sequence[Target]
    ) -> dict[str, torch.Tensor]:
        paths = list(dict.fromkeys(target.path for target in targets))
        return self.distiller.compress(self.live.features(batched_inputs, paths), targets)

    def _computed_alone(self, item: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Everything that a record holds of a sample."""
        return self._live_targets([item], self.distiller.targets)

    def record_views(self, batch: Iterable[dict[str, Any]]) -> None:
        """Record the targets of samples."""
        assert self.record is not None
        for item in batch:
            self.record.record(item, self._computed_alone)

    def fit_components(self, batches: Iterable[list[dict[str, Any]]]) -> dict[str, float]:
        """Fit the components that aren't known yet to the teacher's maps of training views.

        Where several processes train, the first one's are everyone's; all must call it.

        Args:
            batches: of samples, on the teacher's device.

        Returns:
            the share of the variance that they keep, by `Target.name`.
        """
        targets = self.distiller.unfitted()
        fits = {target.path: ComponentFit() for target in targets}
        for batch in batches if fits else ():
            for path, features in self.live.features(batch, list(fits)).items():
                fits[path].add(features)
        self.distiller.set_components(fits)
        modules = {target.name: self.distiller.components_of(target) for target in targets}
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            for module in modules.values():
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)
        return {name: float(module.kept) for name, module in modules.items()}

    def _idle_parameters(self, used: Sequence[str]) -> list[nn.Parameter]:
        """The parameters of the losses that a step leaves out, where processes share it."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return []
        idle = [o for o in self.distiller.objectives if o.name not in used]
        return [p for o in idle for p in self.distiller.loss_of(o).parameters()]

    def drop_idle_gradients(self) -> None:
        """Leave the layers of losses that a step left out as they are in its update."""
        for parameter in self._idle:
            parameter.grad = None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Distiller:
        super()._apply(fn, recurse)
        if self._teacher is not None:
            self._teacher.apply(fn)
        self._format()
        return self

    def _format(self) -> None:
        for name in self._formatted:
            format_module(getattr(self, name))


def _hold_tensors_alone(model: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """Turn the modules' own state into a tensor, the only type of Detectron2's checkpointer."""
    name = f"{prefix}distiller._extra_state"
    if isinstance(state_dict.get(name), dict):
        state_dict[name] = torch.tensor(list(state_dict[name].values()))


def _take_plain_names(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a plain student's entries the names that they have in a distiller."""
    names = [name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)]
    if not names or any(name.startswith(("student.", "distiller.")) for name in names):
        return
    known = model.get_submodule("student").state_dict().keys()
    plain = [name for name in names if name in known]
    if not plain:
        raise ValueError(
            f"nothing of these {len(names)} entries, such as {names[0]}, is the student's or the "
            "distillation modules'; names of other codebases are translated by "
            "afdcd.models.load_weights"
        )
    for name in plain:
        state_dict[f"{prefix}student.{name}"] = state_dict.pop(prefix + name)


def tap_shapes(
    model: nn.Module,
    paths: Sequence[str],
    *,
    size: tuple[int, int] = (128, 128),
    whose: str = "the model",
) -> dict[str, TapShape]:
    """The shapes of taps for an image of the given size.

    Evaluates the model once, on a black image and without gradients, as far as the last tap.

    Raises:
        TapError: see `FeatureTaps`.
    """
    device = next(model.parameters()).device
    image = torch.zeros(3, *size, device=device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), FeatureTaps(model, paths, stop_early=True, whose=whose) as taps:
            model([{"image": image, "height": size[0], "width": size[1]}])
    finally:
        model.train(was_training)
    shapes = {}
    for path in paths:
        _, channels, height, width = taps[path].shape
        corners = is_logits(path) and corners_on_corners(model)
        shapes[path] = TapShape(channels, height, width, corners=corners)
    return shapes
