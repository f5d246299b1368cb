"""Train or evaluate as a config says: what the command line calls in each process."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup, launch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from afdcd.checkpoints import BEST, FINAL, Checkpoints
from afdcd.config import ConfigError
from afdcd.d2.config import configure, teacher_config
from afdcd.d2.datasets import find_dataset
from afdcd.d2.evaluation import evaluate
from afdcd.d2.modeling import build_student
from afdcd.d2.trainer import DistillTrainer
from afdcd.d2.weights import load_model_weights
from afdcd.data import DataError, Dataset
from afdcd.distill import TapError
from afdcd.files import write_text
from afdcd.models.weights import CheckpointError
from afdcd.precision import DTYPES
from afdcd.preflight import (
    SetupError,
    batch_problems,
    class_problems,
    file_problems,
    find_datasets,
    occupied_problems,
    output_problems,
    raise_problems,
    weights_problems,
)

logger = logging.getLogger(__name__)

RESULTS = "results.json"


def launch_run(
    config_file: str,
    overrides: Sequence[str],
    *,
    eval_only: bool = False,
    resume: bool = False,
    num_gpus: int | None = None,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Train or evaluate a config in as many processes as asked for.

    Without a GPU, ``num_gpus`` is the number of CPU processes.

    Raises:
        ConfigError, SetupError, DataError: the run can't start.
    """
    arguments = (config_file, list(overrides), eval_only, resume)
    cfg = configure(config_file, list(overrides))
    processes = max(1 if num_gpus is None else num_gpus, 1)
    check(cfg, processes * num_machines, num_gpus, eval_only=eval_only, resume=resume)
    if processes * num_machines == 1:
        run(*arguments, num_gpus)
        return
    launch(
        run,
        processes,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        args=(*arguments, num_gpus),
    )


def run(
    config_file: str, overrides: list[str], eval_only: bool, resume: bool, num_gpus: int | None
) -> dict[str, Any]:
    """One process's part of a run.

    Returns:
        on the main process the content of ``results.json``.
    """
    cfg = configure(config_file, overrides)
    _choose_device(cfg, num_gpus)
    if resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").is_file():
        cfg.SEED = Checkpoints(Path(cfg.OUTPUT_DIR)).read_last()["seed"]
    cfg.freeze()
    default_setup(cfg, None)
    try:
        if eval_only:
            student = build_student(cfg)
            weights = _weights(cfg)
            load_model_weights(student, weights, complete=True)
            return {"weights": weights, "figures": evaluate(cfg, student)}
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        figures = trainer.train()
    except (CheckpointError, TapError, RuntimeError, KeyError) as error:
        if isinstance(error, (CheckpointError, TapError)):
            raise SetupError([str(error)]) from error
        raise
    results = {
        "figures": figures,
        "teacher": trainer.state.teacher_figures,
        "best": trainer.state.best,
        "iterations": trainer.state.iteration,
        "seconds": trainer.state.seconds,
        "seconds_per_step": trainer.state.seconds / max(trainer.state.iteration, 1),
        "seed": trainer.state.seed,
    }
    if comm.is_main_process():
        write_text(Path(cfg.OUTPUT_DIR) / RESULTS, json.dumps(results, indent=2))
    return results


def check(cfg: Any, processes: int, num_gpus: int | None, *, eval_only: bool, resume: bool) -> None:
    """Raise one SetupError with everything that is known to be wrong before any process starts."""
    problems = _config_problems(cfg, processes, num_gpus)
    keys = ["TEST"] if eval_only else ["TRAIN", "TEST"]
    found: list[Dataset] = []
    for key in keys:
        names, title = cfg.DATASETS[key], f"DATASETS.{key}"
        if cfg.INPUT.MAPPER == "detectron2":
            unknown = [name for name in names if name not in DatasetCatalog.list()]
            problems += [f"{title}: no data set is called {name!r}" for name in unknown]
        else:
            found += find_datasets(names, title, problems, find_dataset)
    if eval_only:
        weights = _weights(cfg)
        checks = [weights_problems(weights, "MODEL.WEIGHTS", needed=True)]
    else:
        folder = Path(cfg.OUTPUT_DIR)
        checks = [
            _teacher_problems(cfg),
            weights_problems(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS", needed=False),
            output_problems(folder),
            [] if resume else occupied_problems(Checkpoints(folder)),
        ]
    if found:
        checks.append(class_problems(cfg, found))
    raise_problems(problems, *checks)
    if not (eval_only or resume):
        raise_problems(*[file_problems(dataset) for dataset in found])


def _config_problems(cfg: Any, processes: int, num_gpus: int | None) -> list[str]:
    problems = []
    names = [cfg.MODEL.META_ARCHITECTURE]
    if names == ["Distiller"]:
        names.append(cfg.MODEL.DISTILLER.STUDENT)
    for name in names:
        if name not in META_ARCH_REGISTRY:
            problems.append(f"no meta-architecture is called {name!r}")
    if cfg.SOLVER.AMP.DTYPE not in DTYPES:
        problems.append(
            f"SOLVER.AMP.DTYPE must be one of {', '.join(DTYPES)}; got {cfg.SOLVER.AMP.DTYPE}"
        )
    problems += batch_problems(cfg, processes)
    if cfg.INPUT.MAPPER not in ("scale_crop", "detectron2"):
        problems.append(f"INPUT.MAPPER must be scale_crop or detectron2; got {cfg.INPUT.MAPPER}")
    available = torch.cuda.device_count()
    if num_gpus and available and num_gpus > available:
        problems.append(f"--num-gpus {num_gpus}, but PyTorch sees {available}")
    return problems


def _teacher_problems(cfg: Any) -> list[str]:
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return []
    key = "MODEL.DISTILLER.TEACHER"
    if not cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE:
        return [f"{key}.CONFIG_FILE is empty: name the teacher's YAML file"]
    try:
        weights = teacher_config(cfg).MODEL.WEIGHTS
    except ConfigError as error:
        return [f"{key}: {error}"]
    return weights_problems(weights, f"{key}.WEIGHTS", needed=True)


def _weights(cfg: Any) -> str:
    """``MODEL.WEIGHTS``, or the run's own final or best model."""
    own = [p for p in (Path(cfg.OUTPUT_DIR) / n for n in (FINAL, BEST)) if p.is_file()]
    return cfg.MODEL.WEIGHTS or (str(own[0]) if own else "")


def _choose_device(cfg: Any, num_gpus: int | None) -> None:
    if num_gpus == 0 or not torch.cuda.is_available():
        if cfg.MODEL.DEVICE != "cpu":
            logger.warning("PyTorch sees no CUDA device, or none was asked for: using the CPU")
        cfg.MODEL.DEVICE = "cpu"


__all__ = ["DataError", "launch_run", "run"]
