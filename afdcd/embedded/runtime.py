"""The embedded runtime, as commands and checks see it: see `afdcd.engine.runtime`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from afdcd.config import embedded_config, merge_file, merge_overrides
from afdcd.data import Dataset, load_dataset
from afdcd.embedded import build, checks
from afdcd.models import build_segmentor_from_config, load_weights


class EmbeddedRuntime:
    """The one without Detectron2."""

    def configure(self, file: str, overrides: list[str]) -> Any:
        return configure(file, overrides)

    def find_dataset(self, name: str) -> Dataset:
        return load_dataset(name)

    def config_problems(self, cfg: Any) -> list[str]:
        return checks.config_problems(cfg)

    def teacher_config(self, cfg: Any) -> Any:
        return build.teacher_config(cfg)

    def build(self, cfg: Any) -> nn.Module:
        return build_segmentor_from_config(cfg)

    def load(self, model: nn.Module, path: str, complete: bool) -> str:
        return str(load_weights(model, path, part="model" if complete else "auto"))

    def task_problems(self, cfg: Any, limit: int | None) -> list[tuple[str, str]]:
        return []  # that the mapper is Detectron2's is said by config_problems

    def task_batch(self, cfg: Any, count: int) -> list[dict[str, Any]]:
        return []

    def step_context(self) -> AbstractContextManager[Any]:
        return nullcontext()


def configure(file: str, overrides: list[str]) -> Any:
    """The config of a file and KEY VALUE overrides.

    Raises:
        ConfigError: see `merge_file` and `merge_overrides`.
    """
    cfg = embedded_config()
    merge_file(cfg, file)
    merge_overrides(cfg, overrides)
    return cfg
