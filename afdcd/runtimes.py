"""The two runtimes behind one set of functions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from afdcd.config import embedded_config, merge_file, merge_overrides
from afdcd.data import Dataset, load_dataset
from afdcd.embedded import build, preflight
from afdcd.models import build_segmentor_from_config, load_weights
from afdcd.preflight import INSTALL_DETECTRON2, SetupError


@dataclass(frozen=True)
class Runtime:
    """What commands other than training need of a runtime.

    Attributes:
        configure: from a file and overrides to a config.
        find_dataset: by name.
        config_problems: settings that can't work.
        teacher_config: of a distillation config.
        build: the model that a config describes (a distiller's student), on the CPU.
        load: weights into a model; the flag asks for all of them. Returns what was loaded, in
            words.
        task_problems: (kind, sentence) of what is wrong with the data sets of ``INPUT.MAPPER:
            detectron2``; the number limits the records looked at.
        task_batch: samples of Detectron2's own mapper.
        step_context: what a training step runs in.
    """

    configure: Callable[[str, list[str]], Any]
    find_dataset: Callable[[str], Dataset]
    config_problems: Callable[[Any], list[str]]
    teacher_config: Callable[[Any], Any]
    build: Callable[[Any], nn.Module]
    load: Callable[[nn.Module, str, bool], str]
    task_problems: Callable[[Any, int | None], list[tuple[str, str]]]
    task_batch: Callable[[Any, int], list[dict[str, Any]]]
    step_context: Callable[[], AbstractContextManager[Any]]


def choose_runtime(name: str) -> Runtime:
    """``auto`` (Detectron2 where it is installed), ``detectron2`` or ``embedded``.

    Raises:
        SetupError: Detectron2 is asked for and not installed.
    """
    installed = importlib.util.find_spec("detectron2") is not None
    if name == "detectron2" and not installed:
        raise SetupError([f"--runtime detectron2: it is not installed. {INSTALL_DETECTRON2}"])
    wanted = name == "detectron2" or (name == "auto" and installed)
    return detectron2_runtime() if wanted else embedded_runtime()


def embedded_runtime() -> Runtime:
    """The one without Detectron2."""

    def configure(file: str, overrides: list[str]) -> Any:
        cfg = embedded_config()
        merge_file(cfg, file)
        merge_overrides(cfg, overrides)
        return cfg

    def load(model: nn.Module, path: str, complete: bool) -> str:
        return str(load_weights(model, path, part="model" if complete else "auto"))

    return Runtime(
        configure=configure,
        find_dataset=load_dataset,
        config_problems=preflight.config_problems,
        teacher_config=build.teacher_config,
        build=build_segmentor_from_config,
        load=load,
        # That the mapper is Detectron2's is said by config_problems.
        task_problems=lambda cfg, limit: [],
        task_batch=lambda cfg, count: [],
        step_context=nullcontext,
    )


def detectron2_runtime() -> Runtime:
    """Detectron2's; imports it."""
    from detectron2.utils.events import EventStorage

    from afdcd.d2.checks import config_problems
    from afdcd.d2.config import configure, teacher_config
    from afdcd.d2.datasets import find_dataset
    from afdcd.d2.dry_run import task_batch, task_problems
    from afdcd.d2.modeling import build_student
    from afdcd.d2.weights import load_model_weights

    def build_on_cpu(cfg: Any) -> nn.Module:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        if cfg.MODEL.META_ARCHITECTURE != "Distiller":
            cfg.MODEL.DISTILLER.STUDENT = cfg.MODEL.META_ARCHITECTURE
        return build_student(cfg)

    def load(model: nn.Module, path: str, complete: bool) -> str:
        load_model_weights(model, path, complete=complete)
        return f"loaded {Path(path).name}"

    return Runtime(
        configure=lambda file, overrides: configure(file, list(overrides)),
        find_dataset=find_dataset,
        config_problems=config_problems,
        teacher_config=teacher_config,
        build=build_on_cpu,
        load=load,
        task_problems=task_problems,
        task_batch=task_batch,
        step_context=EventStorage,  # where Detectron2's heads write figures
    )
