"""All checks in turn, none of which stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from afdcd.checks import files, networks, settings, step, teacher_score
from afdcd.checks.findings import Report
from afdcd.distill import Distiller
from afdcd.engine.runtime import Runtime

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Files opened of each data set, and images the teacher is scored on, without --full.
FILES, SCORED = 200, 8


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
    _guarded(report, "config", lambda: settings.check_settings(cfg, runtime, report))
    limit = None if full else FILES
    if cfg.INPUT.MAPPER != "scale_crop":
        _other_task(cfg, runtime, device, limit, report)
        return report
    found = _guarded(report, "dataset", lambda: files.find_all(cfg, runtime, report))
    train, test = found or ([], [])
    _guarded(report, "file", lambda: files.scan_all(cfg, train, test, limit=limit, report=report))
    model, teacher_cfg = _models(cfg, runtime, report)
    if model is not None:
        _guarded(report, "model", lambda: model.to(device))
    if isinstance(model, Distiller) and (test or train):
        # Before the step, which folds its normalization.
        scored = None if full else SCORED
        teacher = model.teacher
        _guarded(
            report,
            "teacher",
            lambda: teacher_score.score_teacher(
                teacher_cfg, teacher, (test or train)[0], limit=scored, report=report
            ),
        )
    if model is not None and train:
        _guarded(report, "step", lambda: _step(cfg, model, train[0], device, report))
    return report


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
                step.measure_step(cfg, model, batch, device, report)

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
            lambda: networks.check_class_order(cfg, teacher_cfg, runtime, report),
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


def _step(cfg: Any, model: Any, dataset: Any, device: torch.device, report: Report) -> None:
    if cfg.SOLVER.IMS_PER_BATCH < 1 or not step.fits_memory(cfg, model, device, report):
        return
    whole = cfg.SOLVER.IMS_PER_BATCH
    count = whole if device.type == "cuda" else min(step.FEW, whole)
    batch = step.load_batch(cfg, dataset, max(count, step.FEW), report)
    if len(batch) < step.FEW:
        report.note("step", "too few usable samples to try a training step")
        return
    try:
        step.measure_step(cfg, model, batch, device, report)
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
    except RuntimeError as error:
        report.fix("config", f"MODEL.DEVICE: {error}")
        return torch.device("cpu")


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
