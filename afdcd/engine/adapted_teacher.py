"""A teacher that is other people's model, as commands and checks see it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from afdcd.data import Dataset
from afdcd.distill.teacher_settings import TeacherSettings
from afdcd.engine.class_names import listed_classes
from afdcd.engine.runtime import Runtime
from afdcd.models import count_parameters
from afdcd.models.adapters import ADAPTERS, Adapter, ImageSettings, Source, read_source

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class AdaptedTeacher(Runtime):
    """``MODEL.DISTILLER.TEACHER.NAME``, in either runtime.

    It has no config of its own: data sets, evaluation and device are the student's, and its images
    come in the student's channel order.

    Args:
        student: the run that names it.

    Raises:
        ValueError: it names nothing that is known, or ``TEACHER.IMAGES`` can't work.
    """

    def __init__(self, student: Runtime) -> None:
        cfg = student.cfg.clone()
        cfg.defrost()
        node = cfg.MODEL.DISTILLER.TEACHER
        self.source: Source = read_source(
            node.NAME,
            weights=node.WEIGHTS,
            images=ImageSettings.read(node.IMAGES),
            logits_stride=node.LOGITS_STRIDE,
            image_format=cfg.INPUT.FORMAT,
            config=student.cfg,
        )
        cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        cfg.MODEL.WEIGHTS = node.NAME  # for messages
        cfg.TEST.CONFUSION = False  # the pictures are the student's
        super().__init__(cfg)
        self._student = student

    @classmethod
    def configure(cls, file: str, overrides: list[str]) -> Self:
        raise NotImplementedError("a model of other people's has no config file")

    @property
    def kind(self) -> type[Adapter]:
        """What reads it."""
        return ADAPTERS.get(self.source.kind)

    @property
    def class_names(self) -> tuple[str, ...]:
        """By its own files; empty where they don't say."""
        return self.kind.class_names(self.source)

    @property
    def normalization(self) -> dict[str, list[float]]:
        images = self.source.images.over(self.kind.image_defaults(self.source))
        order = 1 if images.format == self.image_format else -1
        return {"MEAN": list(images.mean[::order]), "STD": list(images.std[::order])}

    def problems(self) -> list[str]:
        problems = list(self.kind.problems(self.source))
        if self.cfg.MODEL.DISTILLER.TEACHER.OPTS:
            problems.append(
                f"{self.source.name} has no config that TEACHER.OPTS could change: set it to []"
            )
        return problems

    def teacher(self) -> Runtime:
        raise NotImplementedError("a teacher has no teacher")

    def find_dataset(self, name: str) -> Dataset:
        return self._student.find_dataset(name)

    def build(self) -> nn.Module:
        """The model with its weights, tried on a black training image, on the CPU.

        Raises:
            CheckpointError: it can't be loaded, or not be run on training images.
            ValueError: its classes by name aren't as many as its channels.
        """
        model = self.kind.load(self.source)
        settings = TeacherSettings.read(self.cfg.MODEL.DISTILLER.TEACHER)
        height, width = (round(side * settings.resolution) for side in self.training_size)
        model.probe((height, width))
        names = listed_classes(settings.classes) or self.class_names
        if names and len(names) != model.channels:
            raise ValueError(
                f"{self.source.name} gives {model.channels} channels, but its classes are "
                f"{len(names)}, from {names[0]!r} to {names[-1]!r}: name what its channels stand "
                "for in MODEL.DISTILLER.TEACHER.CLASSES"
            )
        return model

    def build_teacher(self) -> nn.Module:
        model = self.build()
        logger.info(
            "Teacher: %s, %.1f M parameters, %d channels",
            self.source.name,
            count_parameters(model) / 1e6,
            model.channels,
        )
        return model

    def load(self, model: nn.Module, path: str, *, complete: bool) -> str:
        return f"its own, of {path}"

    @property
    def weight_files(self) -> Sequence[str]:
        return [str(path) for path in self.kind.files(self.source)]

    @property
    def identity(self) -> dict[str, Any]:
        images = self.source.images.over(self.kind.image_defaults(self.source))
        stride = self.source.logits_stride  # left out where it is 0, as in records of before it
        return {
            "NAME": self.source.name,
            **({"LOGITS_STRIDE": stride} if stride else {}),
            "IMAGES.FORMAT": images.format,
            "IMAGES.PIXEL_MEAN": list(images.mean),
            "IMAGES.PIXEL_STD": list(images.std),
            "IMAGES.MULTIPLE": images.multiple,
            "IMAGES.SIZE": list(images.size),
        }
