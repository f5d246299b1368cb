"""All checks in turn, none of which stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from afdcd.checks import data, networks, step
from afdcd.checks.inference import inference_problems
from afdcd.checks.output import check_output
from afdcd.checks.record import check_record
from afdcd.checks.training_data import TrainingData, find_training_data
from afdcd.checks.unlabeled import check_unlabeled, compare_confidence
from afdcd.checks.weights import class_differences
from afdcd.data.listing import spread
from afdcd.distill import Distiller, distiller_settings
from afdcd.engine.averaged_teacher import in_students_order
from afdcd.engine.checkpoints import student_of
from afdcd.engine.precision import autocast
from afdcd.engine.runtime import Runtime
from afdcd.engine.settings import EvaluationSettings, TrainingSettings
from afdcd.evaluation import predict
from afdcd.tasks import Task
from afdcd.utils.findings import Report
from afdcd.utils.problems import constructed

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Images that the teacher is scored on without --full.
SCORED = 8
# A teacher with less than this main score, in percent, knows nothing of the data.
USELESS = 1.0


def diagnose(
    config_file: str,
    overrides: list[str],
    runtime: type[Runtime],
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
    run = _guarded(report, "config", lambda: runtime.configure(config_file, overrides))
    if run is None:
        return report
    device = device or _device(run.device, report)
    report.fix_problems(_guarded(report, "config", run.problems) or [])
    _guarded(report, "output", lambda: check_output(run.output, report))
    limit = None if full else data.FILES_CHECKED
    if not run.own_mapper:
        _other_task(run, device, limit, report)
        return report
    # What can't work is among run.problems().
    settings = constructed(run.training_settings, [])
    found = _find_data(run, report)
    train, test, unlabeled = found
    if settings is not None:
        loading, inference = settings.loading, settings.inference
        _guarded(
            report,
            "file",
            lambda: data.check_files(train, test, loading, inference, report, limit=limit),
        )
        _guarded(
            report,
            "file",
            lambda: check_unlabeled(unlabeled, loading, report, limit=limit),
        )
    model, teacher = _models(run, report)
    if model is not None:
        if train or test:
            _guarded(report, "model", lambda: (train or test)[0].bind(student_of(model)))
        if settings is not None:
            problems = inference_problems(settings.inference, student_of(model))
            report.fix_problems(problems)
        _guarded(report, "model", lambda: model.to(device))
    if teacher is not None and class_differences(run, teacher):
        teacher = None  # it can't be scored on the student's classes
    if isinstance(model, Distiller) and teacher is not None and (test or train):
        # Before the step, which folds its normalization.
        task = (test or train)[0]
        scored = None if full else SCORED
        _guarded(
            report,
            "teacher",
            lambda: _score_teacher(
                *in_students_order(run, teacher, model.teacher), task, scored, report
            ),
        )
        if unlabeled:
            _guarded(
                report,
                "confidence",
                lambda: compare_confidence(
                    teacher, model.teacher, (train or test)[0], unlabeled, report
                ),
            )
    if model is not None and (train or (test and unlabeled)) and settings is not None:
        together = found.together
        _guarded(report, "record", lambda: check_record(run, together.dataset.records, report))
        _guarded(report, "step", lambda: _step(settings, model, together, device, report))
        if isinstance(model, Distiller) and distiller_settings(run.cfg).teacher.record.folder:
            report.note(
                "step",
                "measured with the teacher live; once its views are recorded, a step costs less "
                "(tools/benchmark.py step)",
            )
    return report


def _find_data(run: Runtime, report: Report) -> TrainingData:
    problems: list[str] = []
    found = find_training_data(run, problems)
    report.fix_problems(problems, "dataset")
    for task in [*found.train, *found.test]:
        report.note("incomplete", *filter(None, [task.dataset.count_problem()]))
        report.note("size", *filter(None, [task.dataset.size_problem()]))
    return found


def _score_teacher(
    settings: EvaluationSettings,
    teacher: nn.Module,
    task: Task,
    limit: int | None,
    report: Report,
) -> None:
    """Evaluate the teacher on some images, and have the task judge it."""
    evaluator = task.evaluator()
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


def _other_task(run: Runtime, device: torch.device, limit: int | None, report: Report) -> None:
    """The checks of a config with Detectron2's own mapper."""
    problems = _guarded(report, "dataset", lambda: run.other_data_problems(limit)) or []
    for kind, text in problems:
        report.fix(kind, text)
    model, teacher = _models(run, report)
    if model is None or problems:
        return
    model.to(device)
    if isinstance(model, Distiller) and teacher is not None and not run.teacher_name:
        scored = None if limit is None else SCORED
        _guarded(
            report,
            "teacher",
            lambda: _note_score(*run.other_teacher_score(teacher, model.teacher, scored), report),
        )

    def take_step() -> None:
        check_record(run, run.training_records(), report)
        batch = run.other_batch(step.FEW)
        if batch:
            with run.step_context():
                step.measure_step(run.training_settings(), model, batch, device, report)

    _guarded(report, "step", take_step)


def _note_score(metric: str, value: float, report: Report) -> None:
    """What is to be said of a teacher's score, in percent; NaN where it finds nothing."""
    report.facts["teacher"] = {metric: value}
    if not value >= USELESS:
        text = "finds nothing" if value != value else f"has {metric} {value:.2f}"
        report.note("teacher", f"the teacher {text} on these images: is it trained on this data?")


def _models(run: Runtime, report: Report) -> tuple[Any, Runtime | None]:
    """The model to train, or None, and the teacher's config."""
    student = _guarded(report, "model", lambda: networks.build_student(run, report))
    if not run.distils:
        return student, None
    pair = _guarded(report, "teacher", lambda: networks.build_teacher(run, report))
    side, teacher = pair or (None, None)
    if side is not None:
        _guarded(
            report,
            "class-order",
            lambda: networks.check_teacher_classes(run, side, report),
        )
        _guarded(report, "normalization", lambda: networks.check_format(run, side, report))
    if student is None or teacher is None or side is None:
        return None, side
    distiller = _guarded(
        report,
        "tap",
        lambda: networks.build_pair(run, student, side, teacher, report),
    )
    return distiller, side


def _step(
    settings: TrainingSettings, model: Any, task: Task, device: torch.device, report: Report
) -> None:
    images = settings.batch.images
    count = images if device.type == "cuda" else min(step.FEW, images)
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


def _device(wanted: str, report: Report) -> torch.device:
    if wanted != "cpu" and not torch.cuda.is_available():
        report.note("device", f"MODEL.DEVICE {wanted} isn't seen here: measured on the CPU")
        return torch.device("cpu")
    try:
        return torch.device(wanted)
    except RuntimeError:
        return torch.device("cpu")  # among run.problems()


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
