"""Record a teacher ahead of training: what losses compare with, for every view of every image."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import torch
import torch.multiprocessing as mp

from afdcd.checks.weights import class_differences, teacher_problems
from afdcd.cli.arguments.record_teacher import parser
from afdcd.cli.common import (
    choose_runtime,
    overrides_of,
    report_errors,
    set_up_logging,
)
from afdcd.distill.distiller import Distiller
from afdcd.embedded.evaluation import evaluate
from afdcd.engine.averaged_teacher import evaluated_teacher
from afdcd.engine.record_manifest import KEY
from afdcd.engine.record_views import build_recorder, describe_costs, record_views
from afdcd.engine.recording import Recording
from afdcd.engine.runtime import Runtime
from afdcd.tasks import task_of
from afdcd.utils.problems import SetupError, raise_problems
from afdcd.utils.progress import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's. Ctrl-C (130) loses nothing."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    overrides = overrides_of(args)
    run = _configured(args.runtime, args.config_file, overrides)
    problems = run.problems()
    if not run.distils:
        problems.append(f"{args.config_file} distils nothing: MODEL.META_ARCHITECTURE: Distiller")
    elif not run.cfg.MODEL.DISTILLER.TEACHER.RECORD.FOLDER:
        problems.append(f"{KEY}.FOLDER is empty: name the folder to record into")
    if args.processes is not None and args.processes < 1:
        problems.append(f"--processes must be at least 1; got {args.processes}")
    raise_problems(problems)
    raise_problems(teacher_problems(run))
    on_gpu = torch.device(run.device).type == "cuda"
    processes = args.processes or (torch.cuda.device_count() if on_gpu else 1)
    try:
        distiller, recording = build_recorder(run, _device(run, 0))
    except (ValueError, KeyError) as error:
        raise SetupError([str(error)]) from error
    missing = describe_costs(run, distiller, recording, processes)
    if args.estimate:
        return
    if processes == 1:
        _record(run, recording, distiller, missing, 0, 1)
    elif missing:
        arguments = (args.runtime, args.config_file, overrides, missing, processes)
        mp.spawn(_worker, arguments, nprocs=processes)
    _score(run, recording)
    left = len(recording.missing_views())
    print(
        f"{recording.folder} holds {recording.total - left} of {recording.total} views, recorded "
        f"in {recording.seconds:.0f} s"
    )


def _configured(runtime: str, file: str, overrides: list[str]) -> Runtime:
    run = choose_runtime(runtime).configure(file, overrides)
    if torch.device(run.device).type == "cuda" and not torch.cuda.is_available():
        run.cfg.MODEL.DEVICE = "cpu"
    return run


def _device(run: Runtime, rank: int) -> torch.device:
    device = torch.device(run.device)
    if device.type == "cuda":
        return torch.device("cuda", rank % torch.cuda.device_count())
    return device


def _worker(
    rank: int,
    runtime: str,
    file: str,
    overrides: list[str],
    missing: list[tuple[int, int]],
    processes: int,
) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    run = _configured(runtime, file, overrides)
    device = _device(run, rank)
    run.cfg.MODEL.DEVICE = str(device)
    logging.disable(logging.WARNING)  # the first process has said it
    distiller, recording = build_recorder(run, device)
    logging.disable(logging.NOTSET)
    set_up_logging()
    _record(run, recording, distiller, missing, rank, processes)


def _record(
    run: Runtime,
    recording: Recording,
    distiller: Distiller,
    missing: list[tuple[int, int]],
    rank: int,
    processes: int,
) -> None:
    share = missing[rank::processes]
    with counted("recording", len(share), unit="view", place=rank) as done:
        record_views(run, distiller, recording, share, done)


def _score(run: Runtime, recording: Recording) -> None:
    """Score the teacher once, for runs that won't load it; not for tasks of Detectron2's own."""
    if not run.own_mapper or not run.test_names:
        return
    task = task_of(run.find_dataset(run.test_names[0]))
    name = task.dataset.spec.name
    sides = run.all_teachers()
    if recording.teacher_figures(name) or class_differences(run, sides[0]):
        return
    settings, model = evaluated_teacher(run, sides, [side.build_teacher() for side in sides])
    figures = evaluate(settings, model.to(_device(run, 0)), task)
    recording.note_teacher_figures(name, figures)
    print(f"Teacher on {name}: {task.describe(figures)}")


if __name__ == "__main__":
    sys.exit(main())
