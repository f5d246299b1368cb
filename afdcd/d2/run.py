"""Train or evaluate as a config says: what the command line calls in each process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from afdcd.checks.inference import inference_problems
from afdcd.checks.output import changed_settings, resume_problems
from afdcd.checks.weights import finite_problems, loaded_problems
from afdcd.d2.checks import check
from afdcd.d2.config import get_cfg, scaled
from afdcd.d2.datasets import find_dataset
from afdcd.d2.evaluation import evaluate
from afdcd.d2.machines import Machine, meet, rank_problems
from afdcd.d2.modeling import build_student
from afdcd.d2.processes import REPORTED, launch_reporting
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.d2.trainer import DistillTrainer
from afdcd.d2.weights import load_model_weights
from afdcd.distill import Distiller
from afdcd.engine.checkpoints import Checkpoints, student_of
from afdcd.engine.results import CONFIG_COPY, results_of, write_results
from afdcd.evaluation.scores import write_evaluation
from afdcd.tasks import task_of
from afdcd.utils.files import write_text
from afdcd.utils.problems import SetupError, raise_problems

logger = logging.getLogger(__name__)

# What Detectron2, and this package, raise for settings that don't fit each other or the weights.
BUILD_ERRORS = (AssertionError, KeyError, ValueError, RuntimeError, TypeError)
# How long machines wait for each other before any process starts.
MEETING_SECONDS = 600.0
T = TypeVar("T")


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
    quiet: bool = False,
) -> None:
    """Train or evaluate a config in as many processes as asked for.

    With ``MODEL.DEVICE cpu``, ``num_gpus`` is the number of CPU processes. ``quiet``
    prints warnings and errors alone; ``log.txt`` holds everything.

    Raises:
        ConfigError, SetupError, DataError: the run can't start.
        NonFiniteLoss, Interrupted: see `DistillTrainer.train`.
    """
    arguments = (config_file, list(overrides), eval_only, resume)
    raise_problems(rank_problems(machine_rank, num_machines, dist_url))
    processes = max(1 if num_gpus is None else num_gpus, 1)
    setup = _configured(config_file, list(overrides), processes * num_machines)
    check(setup, processes * num_machines, num_gpus, eval_only=eval_only, resume=resume)
    if processes * num_machines == 1:
        run(*arguments, num_gpus, quiet)
        return
    if num_machines > 1:
        last = Checkpoints(setup.output).last() if resume else None
        own = Machine(machine_rank, num_machines, processes)
        if last is not None and last.is_file():
            own = replace(own, start=last.name, size=last.stat().st_size)
        meet(own, dist_url, timeout=MEETING_SECONDS)
    launch_reporting(
        run,
        processes,
        *arguments,
        num_gpus,
        quiet,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
    )


def run(
    config_file: str,
    overrides: list[str],
    eval_only: bool,
    resume: bool,
    num_gpus: int | None,
    quiet: bool = False,
) -> dict[str, Any]:
    """One process's part of a run.

    Returns:
        on the main process the content of ``results.json``.
    """
    setup = _configured(config_file, overrides, comm.get_world_size())
    cfg = setup.cfg
    _log_own_messages(cfg)
    _choose_device(cfg, num_gpus)
    folder = setup.output
    state, changed = None, ""
    if resume and not eval_only and Checkpoints(folder).last() is not None:
        state = _setup(Checkpoints(folder).read_last)
        raise_problems(resume_problems(state, cfg.SOLVER.MAX_ITER))
        changed = changed_settings(cfg, get_cfg(), folder / CONFIG_COPY)
        cfg.SEED = state["seed"]
    cfg.freeze()
    comm.synchronize()  # the copy that was compared with is about to be replaced
    if quiet:
        _print_warnings_alone(cfg)
    copy = folder / CONFIG_COPY
    earlier = copy.read_text() if copy.is_file() else None
    default_setup(cfg, None)
    if comm.is_main_process() and earlier is not None:
        write_text(copy, earlier)  # Detectron2 has replaced it: too early, as a run may be refused
    if changed and comm.is_main_process():
        logger.warning("%s", changed)
    if eval_only:
        student = _setup(build_student, cfg)
        chosen = setup.result_weights
        logger.info("%s", chosen)
        weights = chosen.path
        _setup(load_model_weights, student, weights, complete=True)
        raise_problems(finite_problems(student, weights, "the model"))
        _check_inference(setup, student)
        scores = evaluate(cfg, student)
        if comm.is_main_process():
            _report(cfg, weights, scores)
        return {"weights": weights, "figures": scores}
    trainer = _setup(DistillTrainer, cfg)
    if isinstance(trainer.state.model, Distiller) and trainer.state.model.has_teacher:
        weights = setup.teacher().weights
        raise_problems(loaded_problems(trainer.state.model.teacher, weights, "the teacher"))
    _check_inference(setup, student_of(trainer.state.model))
    _setup(trainer.resume_or_load, content=state)
    if state is None and cfg.MODEL.WEIGHTS:
        student = student_of(trainer.state.model)
        raise_problems(loaded_problems(student, cfg.MODEL.WEIGHTS, "the student"))
    if comm.is_main_process():
        # Detectron2's own copy is sorted; the order of the losses matters to what they draw.
        write_text(copy, cfg.dump(sort_keys=False))
    try:
        trainer.train()
    except SystemExit:  # scores other than TEST.EXPECTED_RESULTS: they are written all the same
        _write_results(trainer)
        raise
    return _write_results(trainer)


def _configured(config_file: str, overrides: list[str], processes: int) -> Detectron2Runtime:
    """The config as it is trained in this many processes."""
    setup = Detectron2Runtime.configure(config_file, overrides)
    setup.cfg = scaled(setup.cfg, processes)
    return setup


def _write_results(trainer: DistillTrainer) -> dict[str, Any]:
    results = results_of(trainer.state, trainer.figures)
    if comm.is_main_process():
        path = write_results(trainer.checkpoints.folder, results)
        logger.info("Done: results in %s; weights alone in student_final.pth", path)
    return results


def _check_inference(setup: Detectron2Runtime, model: nn.Module) -> None:
    if setup.own_mapper:
        raise_problems(inference_problems(setup.evaluation_settings().inference, model))


def _report(cfg: Any, weights: str, figures: dict[str, Any]) -> None:
    """The scores of an evaluation on the screen and in ``evaluation.json``."""
    if cfg.INPUT.MAPPER == "scale_crop":
        for name, by_task in figures.items():
            task = task_of(find_dataset(name))
            values = by_task[task.TITLE]
            logger.info("%s: %s\n%s", name, task.describe(values), task.table(values))
    path = write_evaluation(Path(cfg.OUTPUT_DIR), weights, figures)
    logger.info("Written to %s", path)


class _WithoutTracebacks(logging.Filter):
    """Leaves out what Detectron2 logs of errors that the command reports in a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], REPORTED))


_WITHOUT_TRACEBACKS = _WithoutTracebacks()


def _log_own_messages(cfg: Any) -> None:
    """Write this package's messages where, and in the form that, Detectron2 writes its own."""
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="afdcd")
    logging.getLogger("afdcd").setLevel(logging.INFO)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_WITHOUT_TRACEBACKS)


def _print_warnings_alone(cfg: Any) -> None:
    """Keep the screen, not the log files, to warnings and errors."""
    for name in ("fvcore", "detectron2"):  # as `default_setup` does, which finds it done
        arguments = {} if name == "detectron2" else {"name": name}
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), **arguments)
    for name in ("afdcd", "fvcore", "detectron2"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setLevel(logging.WARNING)


def _setup(function: Callable[..., T], *args: Any, **settings: Any) -> T:
    """Call a function of the set-up; what it finds wrong becomes a SetupError."""
    try:
        return function(*args, **settings)
    except BUILD_ERRORS as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        kind = "" if text and " " in text else f"{type(error).__name__}: "
        logger.debug("The set-up failed", exc_info=True)
        raise SetupError([f"{kind}{text[:1000]}"]) from error


def _choose_device(cfg: Any, num_gpus: int | None) -> None:
    if num_gpus == 0 or not torch.cuda.is_available():
        if cfg.MODEL.DEVICE != "cpu":
            logger.warning("PyTorch sees no CUDA device, or none was asked for: using the CPU")
        cfg.MODEL.DEVICE = "cpu"
