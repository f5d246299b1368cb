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

from afdcd.analysis import class_table, write_evaluation
from afdcd.checkpoints import BEST, FINAL, Checkpoints
from afdcd.config import ConfigError
from afdcd.d2.config import configure, get_cfg, teacher_config
from afdcd.d2.datasets import find_dataset
from afdcd.d2.evaluation import evaluate
from afdcd.d2.modeling import build_student
from afdcd.d2.trainer import DistillTrainer
from afdcd.d2.weights import load_model_weights
from afdcd.data import DataError, Dataset
from afdcd.distill import TapError
from afdcd.files import write_text
from afdcd.models.weights import CheckpointError
from afdcd.preflight import (
    SetupError,
    class_problems,
    compare_with_before,
    crop_problems,
    file_problems,
    find_datasets,
    mapper_problems,
    mixed_label_problems,
    name_problems,
    occupied_problems,
    output_problems,
    raise_problems,
    solver_problems,
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
    folder = Path(cfg.OUTPUT_DIR)
    if resume and not eval_only and Checkpoints(folder).last() is not None:
        state = _setup(Checkpoints(folder).read_last)
        cfg.SEED = state["seed"]
        compare_with_before(cfg, get_cfg(), folder, state)
    cfg.freeze()
    default_setup(cfg, None)
    if eval_only:
        student = _setup(build_student, cfg)
        weights = _weights(cfg)
        _setup(load_model_weights, student, weights, complete=True)
        scores = evaluate(cfg, student)
        if comm.is_main_process():
            _report(cfg, weights, scores)
        return {"weights": weights, "figures": scores}
    trainer = _setup(DistillTrainer, cfg)
    _setup(trainer.resume_or_load, resume=resume)
    figures = trainer.train()
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


def _report(cfg: Any, weights: str, figures: dict[str, Any]) -> None:
    """The scores of an evaluation on the screen and in ``evaluation.json``."""
    for name, tasks in figures.items():
        for task, values in tasks.items():
            if task == "sem_seg" and cfg.INPUT.MAPPER != "detectron2":
                logger.info("%s: mIoU %.2f\n%s", name, values["mIoU"], class_table(values))
    path = write_evaluation(Path(cfg.OUTPUT_DIR), weights, figures)
    logger.info("Written to %s", path)


def _setup(function: Any, *args: Any, **keywords: Any) -> Any:
    """Call a function of the set-up; what it finds wrong becomes a SetupError."""
    try:
        return function(*args, **keywords)
    except (CheckpointError, TapError, ValueError, KeyError, AssertionError) as error:
        # A KeyError writes its message in quotes; Detectron2 asserts what a config must hold.
        text = error.args[0] if error.args and isinstance(error.args[0], str) else repr(error)
        raise SetupError([text]) from error


def check(cfg: Any, processes: int, num_gpus: int | None, *, eval_only: bool, resume: bool) -> None:
    """Raise one SetupError with everything that is known to be wrong before any process starts."""
    problems = config_problems(cfg) + _process_problems(cfg, processes, num_gpus)
    keys = ["TEST"] if eval_only else ["TRAIN", "TEST"]
    found: list[Dataset] = []
    for key in keys:
        names, title = cfg.DATASETS[key], f"DATASETS.{key}"
        if cfg.INPUT.MAPPER == "detectron2":
            for name in names:
                problems += name_problems(title, name, DatasetCatalog.list())
        else:
            found += find_datasets(names, title, problems, find_dataset)
    if eval_only:
        weights = _weights(cfg)
        checks = [
            weights_problems(weights, "MODEL.WEIGHTS", needed=True),
            output_problems(Path(cfg.OUTPUT_DIR)),
        ]
    else:
        folder = Path(cfg.OUTPUT_DIR)
        checks = [
            _teacher_problems(cfg),
            weights_problems(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS", needed=False),
            mixed_label_problems([d for d in found if d.spec.name in cfg.DATASETS.TRAIN]),
            output_problems(folder),
            [] if resume else occupied_problems(Checkpoints(folder)),
        ]
    if found:
        checks.append(class_problems(cfg, found))
    raise_problems(problems, *checks)
    if not (eval_only or resume):
        raise_problems(*[file_problems(dataset) for dataset in found])


def config_problems(cfg: Any) -> list[str]:
    """Settings that can't work, whatever the data and the number of processes."""
    problems = []
    names = [cfg.MODEL.META_ARCHITECTURE]
    if names == ["Distiller"]:
        names.append(cfg.MODEL.DISTILLER.STUDENT)
    for name in names:
        if name not in META_ARCH_REGISTRY:
            problems.append(f"no meta-architecture is called {name!r}")
    problems += solver_problems(cfg)
    problems += name_problems("INPUT.MAPPER", cfg.INPUT.MAPPER, ("scale_crop", "detectron2"))
    if cfg.INPUT.MAPPER == "scale_crop":
        problems += mapper_problems(cfg) + crop_problems(cfg)
        if cfg.SOLVER.IMS_PER_BATCH < 2:
            problems.append(
                "SOLVER.IMS_PER_BATCH must be at least 2, since the heads normalize image averages "
                f"over the batch; got {cfg.SOLVER.IMS_PER_BATCH}"
            )
    return problems


def _process_problems(cfg: Any, processes: int, num_gpus: int | None) -> list[str]:
    problems = []
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        problems.append(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} must be a multiple of the "
            f"{processes} processes"
        )
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
