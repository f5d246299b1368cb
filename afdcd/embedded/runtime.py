"""The embedded runtime, as commands and checks see it: see `afdcd.engine.runtime`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from afdcd.config import (
    COMMAND_LINE,
    embedded_config,
    is_overridden,
    merge_file,
    merge_overrides,
)
from afdcd.data import Dataset, load_dataset
from afdcd.embedded import checks
from afdcd.engine.adapted_teacher import AdaptedTeacher
from afdcd.engine.runtime import Runtime
from afdcd.models import SemanticSegmentor, build_segmentor_from_config, load_weights

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class EmbeddedRuntime(Runtime):
    """The one without Detectron2."""

    @classmethod
    def configure(cls, file: str, overrides: list[str]) -> Self:
        named = is_overridden("MODEL.WEIGHTS", overrides)
        return cls(configure(file, overrides), weights_named=named)

    def problems(self) -> list[str]:
        return checks.config_problems(self)

    def teacher(self) -> Runtime:
        if self.teacher_name:
            return AdaptedTeacher(self)
        settings = self.cfg.MODEL.DISTILLER.TEACHER
        cfg = configure(settings.CONFIG_FILE, [str(word) for word in settings.OPTS], "OPTS")
        cfg.MODEL.WEIGHTS = settings.WEIGHTS or cfg.MODEL.WEIGHTS
        return EmbeddedRuntime(cfg)

    def build_teacher(self) -> nn.Module:
        model = self.build()
        logger.info("Teacher: %s", self.load(model, self.weights, complete=True))
        return model

    def find_dataset(self, name: str) -> Dataset:
        return load_dataset(name)

    def build(self) -> SemanticSegmentor:
        return build_segmentor_from_config(self.cfg)

    def load(self, model: nn.Module, path: str, *, complete: bool) -> str:
        return str(load_weights(model, path, part="model" if complete else "auto"))


def configure(file: str, overrides: list[str], source: str = COMMAND_LINE) -> Any:
    """The config of a file and KEY VALUE overrides, which are from ``source``.

    Raises:
        ConfigError: see `merge_file` and `merge_overrides`.
    """
    cfg = embedded_config()
    merge_file(cfg, file)
    merge_overrides(cfg, overrides, source)
    return cfg
