"""Detectron2's runtime, as commands and checks see it: see `afdcd.engine.runtime`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventStorage
from torch import nn

from afdcd.d2 import checks, config, dry_run
from afdcd.d2.datasets import find_dataset
from afdcd.d2.modeling import build_student
from afdcd.d2.weights import load_model_weights
from afdcd.data import Dataset


class Detectron2Runtime:
    """The one on Detectron2."""

    def configure(self, file: str, overrides: list[str]) -> Any:
        return config.configure(file, overrides)

    def find_dataset(self, name: str) -> Dataset:
        return find_dataset(name)

    def config_problems(self, cfg: Any) -> list[str]:
        return checks.config_problems(cfg)

    def teacher_config(self, cfg: Any) -> Any:
        return config.teacher_config(cfg)

    def build(self, cfg: Any) -> nn.Module:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        if cfg.MODEL.META_ARCHITECTURE != "Distiller":
            cfg.MODEL.DISTILLER.STUDENT = cfg.MODEL.META_ARCHITECTURE
        return build_student(cfg)

    def load(self, model: nn.Module, path: str, complete: bool) -> str:
        load_model_weights(model, path, complete=complete)
        return f"loaded {Path(path).name}"

    def task_problems(self, cfg: Any, limit: int | None) -> list[tuple[str, str]]:
        return dry_run.task_problems(cfg, limit)

    def task_batch(self, cfg: Any, count: int) -> list[dict[str, Any]]:
        return dry_run.task_batch(cfg, count)

    def step_context(self) -> AbstractContextManager[Any]:
        return EventStorage()  # where Detectron2's heads write figures
