"""All checks in turn, none of which stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from afdcd.checks import data, networks, step
from afdcd.checks.output import check_output
from afdcd.data.listing import spread
from afdcd.distill import Distiller
from afdcd.engine.build import evaluation_settings, training_settings
from afdcd.engine.checkpoints import student_of
from afdcd.engine.precision import autocast
from afdcd.engine.runtime import Runtime
from afdcd.engine.settings import TrainingSettings
from afdcd.evaluation import predict
from afdcd.tasks import Task
from afdcd.utils.findings import Report
from afdcd.utils.problems import constructed

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Images that the teacher is scored on without --full.
SCORED = 8


def diagnose(
    config_file: str,
    overrides: list[str],
    runtime: Runtime,
    *,
    full: bool = False,
    device: torch.device | None = None,
) -> Report:
    """A dry run of a config.

    Args:
        config_file: YAML file.
        overrides: KEY VALUE pairs.
        runtime: whose models and data sets are used.
        full: open every file, and score the teacher on the whole test set.
        device: to measure on; by default ``MODEL.DEVICE`` where PyTorch sees it, else the CPU.

    Returns:
        the report. Nothing is raised for what is wrong with the set-up, and nothing is written.
    """
    report = Report()
    cfg = _guarded(report, "config", lambda: runtime.configure(config_file, overrides))
    if cfg is None:
        return report
    device = device or _device(cfg, report)
    report.fix_problems(_guarded(report, "config", lambda: runtime.config_problems(cfg)) or [])
    _guarded(report, "output", lambda: check_output(Path(cfg.OUTPUT_DIR), report))
    limit = None if full else data.FILES_CHECKED
    if cfg.INPUT.MAPPER != "scale_crop":
        _other_task(cfg, runtime, device, limit, report)
        return report
    # What can't work has been named by config_problems.
    settings = constructed(lambda: training_settings(cfg), [])
    train, test = _find_data(cfg, runtime, report)
    if settings is not None:
        loading = settings.loading
        _guarded(
            report, "file", lambda: data.check_files(train, test, loading, report, limit=limit)
        )
    model, teacher_cfg = _models(cfg, runtime, report)
    if model is not None:
        if train:
            _guarded(report, "model", lambda: train[0].bind(student_of(model)))
        _guarded(report, "model", lambda: model.to(device))
    if isinstance(model, Distiller) and (test or train):
        # Before the step, which folds its normalization.
        task = (test or train)[0]
        scored = None if full else SCORED
        _guarded(
            report,
            "teacher",
            lambda: _score_teacher(teacher_cfg, model.teacher, task, scored, report),
        )
    if model is not None and train and settings is not None:
        _guarded(report, "step", lambda: _step(settings, model, train[0], device, report))
    return report


def _find_data(cfg: Any, runtime: Runtime, report: Report) -> tuple[list[Task], list[Task]]:
    problems: list[str] = []
    train, test = (
        data.find_tasks(cfg.DATASETS[key], f"DATASETS.{key}", problems, runtime.find_dataset)
        for key in ("TRAIN", "TEST")
    )
    problems += data.task_problems(train, test, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    report.fix_problems(problems, "dataset")
    for task in [*train, *test]:
        report.note("incomplete", *filter(None, [task.dataset.count_problem()]))
        report.note("size", *filter(None, [task.dataset.size_problem()]))
    return train, test


def _score_teacher(
    cfg: Any, teacher: nn.Module, task: Task, limit: int | None, report: Report
) -> None:
    """Evaluate the teacher on some images, and have the task judge it."""
    settings, evaluator = evaluation_settings(cfg), task.evaluator()
    mapper = settings.loading.evaluation_mapper()
    device = next(teacher.parameters()).device
    teacher.eval()
    used = 0
    for record in spread(task.dataset.records, limit):
        if task.pair_problem(record):
            continue  # named by the check of the files
        sample = mapper(record)
        with torch.no_grad(), autocast(settings.precision, device):
            output = predict(settings.inference, teacher, [sample])
        if len(output[0][task.KEY]) != task.channels:
            return  # said by the check of the classes
        evaluator.process([sample], output)
        used += 1
    if used:
        task.check_teacher(evaluator, used, report)


def _other_task(
    cfg: Any, runtime: Runtime, device: torch.device, limit: int | None, report: Report
) -> None:
    """The checks of a config with Detectron2's own mapper: all but the teacher's score."""
    problems = _guarded(report, "dataset", lambda: runtime.task_problems(cfg, limit)) or []
    for kind, text in problems:
        report.fix(kind, text)
    model, _ = _models(cfg, runtime, report)
    if model is None or problems:
        return

    def take_step() -> None:
        model.to(device)
        batch = runtime.task_batch(cfg, step.FEW)
        if batch:
            with runtime.step_context():
                step.measure_step(training_settings(cfg), model, batch, device, report)

    _guarded(report, "step", take_step)
    report.note("teacher", "INPUT.MAPPER detectron2: the teacher's score isn't looked at")


def _models(cfg: Any, runtime: Runtime, report: Report) -> tuple[Any, Any]:
    """The model to train, or None, and the teacher's config."""
    student = _guarded(report, "model", lambda: networks.build_student(cfg, runtime, report))
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return student, None
    pair = _guarded(report, "teacher", lambda: networks.build_teacher(cfg, runtime, report))
    teacher_cfg, teacher = pair or (None, None)
    if teacher_cfg is not None:
        _guarded(
            report,
            "class-order",
            lambda: networks.check_teacher_classes(cfg, teacher_cfg, report),
        )
        _guarded(report, "normalization", lambda: networks.check_format(cfg, teacher_cfg, report))
    if student is None or teacher is None:
        return None, teacher_cfg
    distiller = _guarded(
        report,
        "tap",
        lambda: networks.build_pair(cfg, student, teacher_cfg, teacher, report),
    )
    return distiller, teacher_cfg


def _step(
    settings: TrainingSettings, model: Any, task: Task, device: torch.device, report: Report
) -> None:
    whole = settings.batch.images
    count = whole if device.type == "cuda" else min(step.FEW, whole)
    batch = step.load_batch(settings, task, max(count, step.FEW), report)
    if len(batch) < step.FEW:
        report.note("step", "too few usable samples to try a training step")
        return
    if not step.fits_memory(settings, model, batch, device, report):
        return
    try:
        step.measure_step(settings, model, batch, device, report, task_loss=task.LOSS)
    except torch.cuda.OutOfMemoryError:
        report.fix(
            "memory",
            f"a step of {len(batch)} images doesn't fit {device}: use a smaller "
            "SOLVER.IMS_PER_BATCH or INPUT.SCALE_CROP.SIZE, SOLVER.AMP, or several GPUs",
        )


def _device(cfg: Any, report: Report) -> torch.device:
    wanted = cfg.MODEL.DEVICE
    if wanted != "cpu" and not torch.cuda.is_available():
        report.note("device", f"MODEL.DEVICE {wanted} isn't seen here: measured on the CPU")
        return torch.device("cpu")
    try:
        return torch.device(wanted)
    except RuntimeError:
        return torch.device("cpu")  # said by config_problems


def _guarded(report: Report, kind: str, check: Callable[[], T]) -> T | None:
    """Run a check; what it raises becomes a finding, so that the others still run."""
    try:
        return check()
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        logger.debug("the check of %s failed", kind, exc_info=True)
        text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        known = isinstance(error, (ValueError, OSError, KeyError))
        report.fix(kind, str(text) if known else f"{type(error).__name__}: {text}"[:1000])
        return None
