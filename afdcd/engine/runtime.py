"""What commands and checks need of a runtime, whichever it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from afdcd.data import Dataset


class Runtime(Protocol):
    """One of the two runtimes: `afdcd.embedded.runtime` or `afdcd.d2.runtime`."""

    def configure(self, file: str, overrides: list[str]) -> Any:
        """The config of a file and KEY VALUE overrides."""

    def find_dataset(self, name: str) -> Dataset:
        """A data set by name."""

    def config_problems(self, cfg: Any) -> list[str]:
        """Settings that can't work, in sentences."""

    def teacher_config(self, cfg: Any) -> Any:
        """The teacher's config of a distillation config."""

    def build(self, cfg: Any) -> nn.Module:
        """The model that a config describes (a distiller's student), on the CPU."""

    def load(self, model: nn.Module, path: str, complete: bool) -> str:
        """Load weights into a model, all of them if ``complete``; says what was loaded."""

    def task_problems(self, cfg: Any, limit: int | None) -> list[tuple[str, str]]:
        """(kind, sentence) of what is wrong with the data of ``INPUT.MAPPER detectron2``.

        At most ``limit`` records of each data set are looked at.
        """

    def task_batch(self, cfg: Any, count: int) -> list[dict[str, Any]]:
        """Samples of Detectron2's own mapper."""

    def step_context(self) -> AbstractContextManager[Any]:
        """What a training step runs in."""
