"""The meta-architecture: a student, a frozen teacher, and what is compared between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from afdcd.distill.objectives import Objectives
from afdcd.distill.taps import FeatureTaps
from afdcd.distill.teacher import FrozenTeacher
from afdcd.losses.registry import TapShape
from afdcd.utils.memory_format import format_module


class Distiller(nn.Module):
    """Trains ``student`` with the help of a teacher; evaluates as the student alone.

    Submodules are ``student`` and ``distiller`` (align, projector), so the optimizer and
    DistributedDataParallel see these and not the teacher. `load_state_dict` takes the plain
    student's names as well, so that its checkpoints can be loaded by any script, and refuses with
    ValueError a state dict of which nothing fits.

    Args:
        student: in Detectron2's protocol.
        teacher: frozen; not a submodule.
        objectives: what is compared.
        format_student: keep the student's weights in the memory format of their device (see
            `afdcd.utils.memory_format`), wherever they are moved; for students that take either
            format. The objectives' weights are always kept so.

    Raises:
        TapError: a tap doesn't exist in its model.
    """

    _teacher: FrozenTeacher

    def __init__(
        self,
        student: nn.Module,
        teacher: FrozenTeacher,
        objectives: Objectives,
        *,
        format_student: bool = True,
    ) -> None:
        super().__init__()
        FeatureTaps(student, objectives.student_taps, whose="the student")
        FeatureTaps(teacher.model, objectives.teacher_taps, whose="the teacher")
        self.student = student
        self.distiller = objectives
        object.__setattr__(self, "_teacher", teacher)
        self.register_load_state_dict_pre_hook(_take_plain_names)
        self.register_state_dict_post_hook(_hold_tensors_alone)
        self._formatted = ("student", "distiller") if format_student else ("distiller",)
        self._format()

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher's model."""
        return self._teacher.model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """In training the student's losses and every weighted distillation term, by name.

        In evaluation, whatever the student returns.

        Raises:
            ValueError: a distillation term has the name of one of the student's losses.
        """
        if not self.training:
            return self.student(batched_inputs)
        with FeatureTaps(self.student, self.distiller.student_taps, whose="the student") as taps:
            losses = dict(self.student(batched_inputs))
        features = self._teacher.features(batched_inputs, self.distiller.teacher_taps)
        terms = self.distiller(taps, features, batched_inputs)
        if shared := losses.keys() & terms.keys():
            raise ValueError(f"the student already has losses called {', '.join(sorted(shared))}")
        return losses | terms

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Distiller:
        super()._apply(fn, recurse)
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
        shapes[path] = TapShape(channels, height, width)
    return shapes
