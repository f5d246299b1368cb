"""Detectron2's runtime, as commands and checks see it: see `afdcd.engine.runtime`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage
from torch import nn

from afdcd.config import is_overridden
from afdcd.d2 import checks, config, dry_run
from afdcd.d2.datasets import find_dataset, find_unlabeled
from afdcd.d2.loader import task_records, task_stream
from afdcd.d2.modeling import build_student, build_teacher
from afdcd.d2.weights import load_model_weights
from afdcd.data import Dataset
from afdcd.data.spec import Record
from afdcd.data.stream import RecordedViews, SampleStream
from afdcd.data.unlabeled import UnlabeledImages
from afdcd.engine.adapted_teacher import AdaptedTeacher
from afdcd.engine.runtime import Runtime

if TYPE_CHECKING:
    from typing_extensions import Self


class Detectron2Runtime(Runtime):
    """The one on Detectron2."""

    FETCHES = True

    @classmethod
    def configure(cls, file: str, overrides: list[str]) -> Self:
        named = is_overridden("MODEL.WEIGHTS", overrides)
        return cls(config.configure(file, overrides), weights_named=named)

    def problems(self) -> list[str]:
        return checks.config_problems(self.cfg)

    def problems_as_teacher(self) -> list[str]:
        return checks.teacher_config_problems(self.cfg)

    @property
    def class_names(self) -> tuple[str, ...]:
        if known := super().class_names:
            return known
        names = [*self.train_names, *self.test_names]
        if not names or names[0] not in MetadataCatalog.list():
            return ()
        return tuple(getattr(MetadataCatalog.get(names[0]), "stuff_classes", ()))

    def teacher(self) -> Runtime:
        if self.teacher_name:
            return AdaptedTeacher(self)
        return Detectron2Runtime(config.teacher_config(self.cfg))

    def build_teacher(self) -> nn.Module:
        return build_teacher(self.cfg)

    def training_records(self) -> list[Record]:
        return super().training_records() if self.own_mapper else task_records(self.cfg)

    def training_stream(self, *, seed: int, views: RecordedViews | None = None) -> SampleStream:
        if self.own_mapper:
            return super().training_stream(seed=seed, views=views)
        return task_stream(self.cfg, seed=seed, views=views)

    def find_dataset(self, name: str) -> Dataset:
        return find_dataset(name)

    def find_unlabeled(self, name: str) -> UnlabeledImages:
        return find_unlabeled(name)

    def build(self) -> nn.Module:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        if not self.distils:
            cfg.MODEL.DISTILLER.STUDENT = cfg.MODEL.META_ARCHITECTURE
        return build_student(cfg)

    def load(self, model: nn.Module, path: str, *, complete: bool) -> str:
        load_model_weights(model, path, complete=complete)
        return f"loaded {Path(path).name}"

    def other_data_problems(self, limit: int | None) -> list[tuple[str, str]]:
        return dry_run.task_problems(self.cfg, limit)

    def other_teacher_score(
        self, teacher_side: Runtime, teacher: nn.Module, limit: int | None
    ) -> tuple[str, float]:
        score = dry_run.teacher_score(self.cfg, teacher_side.cfg, teacher, limit)
        return score.metric, score.value

    def other_batch(self, count: int) -> list[dict[str, Any]]:
        return dry_run.task_batch(self.cfg, count)

    def step_context(self) -> AbstractContextManager[Any]:
        return EventStorage()  # where Detectron2's heads write figures
