"""Train or evaluate as a config says: what the command line calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afdcd.checks.preflight import (
    changed_settings,
    class_problems,
    file_problems,
    find_datasets,
    mixed_label_problems,
    occupied_problems,
    output_problems,
    resume_problems,
    weights_problems,
)
from afdcd.config import embedded_config
from afdcd.data import Dataset, load_dataset
from afdcd.distill import TapError
from afdcd.embedded import checks
from afdcd.embedded.build import Teacher, build_for_training, load_for_evaluation
from afdcd.embedded.evaluation import describe, evaluate
from afdcd.embedded.trainer import Trainer
from afdcd.engine.checkpoints import Checkpoints, own_weights
from afdcd.engine.results import CONFIG_COPY, results_of, write_results
from afdcd.evaluation.scores import class_table, write_evaluation
from afdcd.models.weights import CheckpointError
from afdcd.utils.files import write_text
from afdcd.utils.problems import SetupError, raise_problems

logger = logging.getLogger(__name__)


def run(
    cfg: Any,
    *,
    eval_only: bool = False,
    resume: bool = False,
    num_gpus: int | None = None,
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, or evaluate, in this process.

    Args:
        cfg: an `embedded_config` with the user's settings.
        eval_only: score ``MODEL.WEIGHTS`` (by default the run's final or best model) and stop.
        resume: go on from the last checkpoint in ``OUTPUT_DIR``, if there is one.
        num_gpus: 0 for the CPU, 1 for a GPU, None for what there is.
        problems: what the caller has found to stand in the way already; reported with the rest.

    Returns:
        the content of ``results.json``: figures by data set, the teacher's, iterations, seconds.

    Raises:
        SetupError: the run can't start; every problem found is named.
        NonFiniteLoss, Interrupted, DataError: see `Trainer.train`.
    """
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    found = [*problems, *checks.config_problems(cfg), *checks.device_problems(num_gpus)]
    if eval_only:
        return _evaluate_only(cfg, num_gpus, found)
    return _train(cfg, num_gpus, found, resume=resume)


def _evaluate_only(cfg: Any, num_gpus: int | None, problems: list[str]) -> dict[str, Any]:
    test = find_datasets(cfg.DATASETS.TEST, "DATASETS.TEST", problems, load_dataset)
    folder = Path(cfg.OUTPUT_DIR)
    weights = own_weights(cfg)
    raise_problems(
        problems,
        weights_problems(weights, "MODEL.WEIGHTS", needed=True),
        class_problems(cfg, test),
        output_problems(folder),
    )
    device = checks.choose_device(cfg, num_gpus)
    model = _setup(load_for_evaluation, cfg, Path(weights)).to(device)
    results = {}
    for dataset in test:
        results[dataset.spec.name] = evaluate(cfg, model, dataset)
        figures = results[dataset.spec.name]
        logger.info("%s: %s\n%s", dataset.spec.name, describe(figures), class_table(figures))
    by_task = {name: {"sem_seg": figures} for name, figures in results.items()}
    logger.info("Written to %s", write_evaluation(folder, weights, by_task))
    return {"weights": weights, "figures": results}


def _train(cfg: Any, num_gpus: int | None, problems: list[str], *, resume: bool) -> dict[str, Any]:
    train = find_datasets(cfg.DATASETS.TRAIN, "DATASETS.TRAIN", problems, load_dataset)
    test = find_datasets(cfg.DATASETS.TEST, "DATASETS.TEST", problems, load_dataset)
    folder = Path(cfg.OUTPUT_DIR)
    raise_problems(
        problems,
        class_problems(cfg, [*train, *test]),
        checks.teacher_problems(cfg),
        weights_problems(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS", needed=False),
        output_problems(folder),
    )
    checkpoints = Checkpoints(folder)
    resuming = resume and checkpoints.last() is not None
    raise_problems(mixed_label_problems(train), [] if resume else occupied_problems(checkpoints))
    state = _setup(checkpoints.read_last) if resuming else None
    if state is None:
        logger.info("Checking the files of %s", ", ".join(d.spec.name for d in [*train, *test]))
        raise_problems(*[file_problems(d) for d in [*train, *test]])
    else:
        raise_problems(resume_problems(cfg, state))
        if changed := changed_settings(cfg, embedded_config(), folder / CONFIG_COPY):
            logger.warning("%s", changed)
    train_set = Dataset(train[0].spec, [r for d in train for r in d.records], train[0].label_map)

    seed = cfg.SEED if cfg.SEED >= 0 else int.from_bytes(os.urandom(4), "little")
    if state is not None:
        seed = state["seed"]
    model, teacher = _setup(build_for_training, cfg, seed)
    model.to(checks.choose_device(cfg, num_gpus))
    trainer = Trainer(cfg, model, train_set, test, seed=seed)
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
        logger.info("Resuming at iteration %d of %d", trainer.state.iteration, cfg.SOLVER.MAX_ITER)
    else:
        write_text(folder / CONFIG_COPY, cfg.dump(sort_keys=False))
        logger.info("Seed %d; output in %s", seed, folder)
        if teacher is not None:
            trainer.state.teacher_figures = _score_teacher(teacher, test[0])
    figures = trainer.train()
    return _finish(cfg, trainer, figures)


def _finish(cfg: Any, trainer: Trainer, figures: dict[str, float]) -> dict[str, Any]:
    results = results_of(trainer.state, {trainer.test_sets[0].spec.name: figures})
    folder = Path(cfg.OUTPUT_DIR)
    write_results(folder, results)
    logger.info(
        "Done: %s; %d iterations in %.0f s; weights alone in %s",
        describe(figures),
        trainer.state.iteration,
        trainer.state.seconds,
        folder / "student_final.pth",
    )
    return results


def _score_teacher(teacher: Teacher, dataset: Dataset) -> dict[str, float]:
    figures = evaluate(teacher.cfg, teacher.model, dataset)
    logger.info("Teacher on %s: %s", dataset.spec.name, describe(figures))
    return figures


def _setup(function: Any, *args: Any) -> Any:
    """Call a function of the set-up; what it finds wrong becomes a SetupError."""
    try:
        return function(*args)
    except (CheckpointError, TapError, ValueError) as error:
        raise SetupError([str(error)]) from error
