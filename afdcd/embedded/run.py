"""Train or evaluate as a config says: what the command line calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afdcd.checks.data import file_problems, find_tasks, task_problems
from afdcd.checks.frozen import frozen_problems
from afdcd.checks.inference import inference_problems
from afdcd.checks.output import (
    changed_settings,
    lost_run_problems,
    occupied_problems,
    resume_problems,
)
from afdcd.checks.training_data import find_training_data
from afdcd.checks.unlabeled import describe_training_images, unlabeled_file_problems
from afdcd.checks.weights import (
    class_differences,
    finite_problems,
    loaded_problems,
    result_problems,
    teacher_problems,
    weights_problems,
)
from afdcd.config import embedded_config
from afdcd.distill import TapError
from afdcd.embedded import checks
from afdcd.embedded.build import build_for_training, load_for_evaluation
from afdcd.embedded.evaluation import evaluate
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.embedded.trainer import Trainer
from afdcd.engine.averaged_teacher import evaluated_teacher
from afdcd.engine.checkpoints import EXPORT, Checkpoints, student_of
from afdcd.engine.recording import Recording, open_recording
from afdcd.engine.results import CONFIG_COPY, results_of, write_results
from afdcd.engine.runtime import Teacher
from afdcd.evaluation.scores import write_evaluation
from afdcd.models.weights import CheckpointError
from afdcd.tasks import Task
from afdcd.utils.files import write_text
from afdcd.utils.folders import folder_problems
from afdcd.utils.memory_format import format_module
from afdcd.utils.problems import SetupError, raise_problems

logger = logging.getLogger(__name__)


def run(
    cfg: Any,
    *,
    eval_only: bool = False,
    resume: bool = False,
    num_gpus: int | None = None,
    weights_named: bool = False,
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, or evaluate, in this process.

    Args:
        cfg: an `embedded_config` with the user's settings.
        eval_only: score a trained model and stop; which one, see `result_weights`.
        resume: go on from the last checkpoint in ``OUTPUT_DIR``, if there is one.
        num_gpus: 0 for the CPU, 1 for a GPU, None for what there is.
        weights_named: whether ``MODEL.WEIGHTS`` stands on the command line.
        problems: what the caller has found wrong already; reported with the rest.

    Returns:
        the content of ``results.json``: figures by data set, the teacher's, iterations, seconds.

    Raises:
        SetupError: the run can't start; every problem found is named.
        NonFiniteLoss, Interrupted, DataError: see `Trainer.train`.
    """
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    setup = EmbeddedRuntime(cfg, weights_named=weights_named)
    found = [*problems, *setup.problems(), *checks.device_problems(num_gpus)]
    if eval_only:
        return _evaluate_only(setup, num_gpus, found)
    return _train(setup, num_gpus, found, resume=resume)


def _evaluate_only(
    setup: EmbeddedRuntime, num_gpus: int | None, problems: list[str]
) -> dict[str, Any]:
    test = find_tasks(setup.test_names, "DATASETS.TEST", problems, setup.find_dataset)
    folder, weights = setup.output, setup.result_weights
    raise_problems(
        problems,
        result_problems(weights, fetches=setup.FETCHES),
        task_problems([], test, setup.channels, setup.ignore_value),
        folder_problems(folder),
    )
    device = checks.choose_device(setup.device, num_gpus)
    logger.info("%s", weights)
    model = _guarded(load_for_evaluation, setup, Path(weights.path))
    settings = setup.evaluation_settings()
    raise_problems(
        finite_problems(model, weights.path, "the model"),
        inference_problems(settings.inference, model),
    )
    model.to(device)
    results, by_task = {}, {}
    for task in test:
        name, figures = task.dataset.spec.name, evaluate(settings, model, task)
        results[name], by_task[name] = figures, {task.TITLE: figures}
        logger.info("%s: %s\n%s", name, task.describe(figures), task.table(figures))
    logger.info("Written to %s", write_evaluation(folder, weights.path, by_task))
    return {"weights": weights.path, "figures": results}


def _train(
    setup: EmbeddedRuntime, num_gpus: int | None, problems: list[str], *, resume: bool
) -> dict[str, Any]:
    data = find_training_data(setup, problems)
    train, test, folder = data.train, data.test, setup.output
    raise_problems(
        problems,
        teacher_problems(setup),
        weights_problems(setup.weights, "MODEL.WEIGHTS", needed=False),
        folder_problems(folder),
    )
    settings = setup.training_settings()
    checkpoints = Checkpoints(folder)
    resuming = resume and checkpoints.last() is not None
    raise_problems(lost_run_problems(checkpoints) if resume else occupied_problems(checkpoints))
    state = _guarded(checkpoints.read_last) if resuming else None
    if state is None:
        names = [task.dataset.spec.name for task in [*train, *test]]
        logger.info("Checking the files of %s", ", ".join([*names, *setup.unlabeled_names]))
        raise_problems(
            frozen_problems(setup),
            file_problems(train, test, settings.loading, settings.inference),
            unlabeled_file_problems(data.unlabeled, settings.loading),
        )
    else:
        raise_problems(resume_problems(state, settings.max_iter))
        if changed := changed_settings(setup.cfg, embedded_config(), folder / CONFIG_COPY):
            logger.warning("%s", changed)

    seed = settings.seed if settings.seed >= 0 else int.from_bytes(os.urandom(4), "little")
    if state is not None:
        seed = state["seed"]
    together = data.together
    logger.info("%s", describe_training_images(together.dataset.records))
    recording = _guarded(open_recording, setup, together.dataset.records)
    model, teachers = _guarded(build_for_training, setup, seed, together, recording)
    raise_problems(
        loaded_problems(student_of(model), setup.weights, "the student") if setup.weights else [],
        *(loaded_problems(t.model, t.side.weights, "the teacher") for t in teachers),
        inference_problems(settings.inference, student_of(model)),
    )
    # Alone as well as distilled: the baseline gets what makes a step faster too.
    format_module(model.to(checks.choose_device(setup.device, num_gpus)))
    trainer = Trainer(settings, model, together, test, seed=seed, recording=recording)
    if state is not None:
        try:
            trainer.state.load(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise SetupError(
                [
                    f"{checkpoints.last()} is of another model than this config describes: "
                    f"{str(error)[:500]}"
                ]
            ) from error
        logger.info("Resuming at iteration %d of %d", trainer.state.iteration, settings.max_iter)
    write_text(folder / CONFIG_COPY, setup.cfg.dump(sort_keys=False))
    if state is None:
        logger.info("Seed %d; output in %s", seed, folder)
        trainer.state.teacher_figures = _teacher_figures(setup, teachers, recording, test[0])
    return _finish(trainer, trainer.train())


def _finish(trainer: Trainer, figures: dict[str, float]) -> dict[str, Any]:
    task, folder = trainer.test_tasks[0], trainer.checkpoints.folder
    results = results_of(trainer.state, {task.dataset.spec.name: figures})
    write_results(folder, results)
    logger.info(
        "Done: %s; %d iterations in %.0f s; weights alone in %s",
        task.describe(figures),
        trainer.state.iteration,
        trainer.state.seconds,
        folder / EXPORT,
    )
    return results


def _teacher_figures(
    setup: EmbeddedRuntime, teachers: list[Teacher], recording: Recording | None, task: Task
) -> dict[str, float]:
    """The teacher's scores, those that its record holds if any; empty where there are none."""
    name = task.dataset.spec.name
    if teachers and (differences := class_differences(setup, teachers[0].side)):
        logger.info("The teacher isn't scored: %s", differences[0])
        return {}
    figures = recording.teacher_figures(name) if recording else {}
    if teachers and not figures:
        sides, models = [t.side for t in teachers], [t.model for t in teachers]
        settings, model = evaluated_teacher(setup, sides, models)
        figures = evaluate(settings, model, task)
        if recording is not None:
            recording.note_teacher_figures(name, figures)
    if figures:
        logger.info("Teacher on %s: %s", name, task.describe(figures))
    return figures


def _guarded(function: Any, *args: Any) -> Any:
    """Call a function of the set-up; what it finds wrong becomes a SetupError."""
    try:
        return function(*args)
    except (CheckpointError, TapError, ValueError) as error:
        raise SetupError([str(error)]) from error
    except RuntimeError as error:  # PyTorch: no memory for weights, for example
        text = str(error).splitlines()[0][:300]
        raise SetupError([f"MODEL describes a network that can't be built: {text}"]) from error
