"""Predict images, folders of images, or videos: colour overlays and label maps."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from afdcd.checks.inference import inference_problems
from afdcd.checks.weights import finite_problems, result_problems
from afdcd.cli.arguments.predict import parser
from afdcd.cli.common import (
    choose_runtime,
    overrides_of,
    report_errors,
)
from afdcd.data import DataError, Dataset, DatasetSpec, LabelMap, get_spec
from afdcd.embedded.checks import choose_device
from afdcd.engine.checkpoints import ResultWeights
from afdcd.engine.runtime import Runtime
from afdcd.prediction import (
    Input,
    Predictor,
    batches_of,
    find_inputs,
    output_problems,
    predict_video,
)
from afdcd.tasks import PredictionStyle, SemanticSegmentation, Task, task_of
from afdcd.utils.folders import folder_problems
from afdcd.utils.problems import SetupError, raise_problems
from afdcd.utils.progress import progress

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    overrides = overrides_of(args)
    if args.amp:
        overrides += ["SOLVER.AMP.ENABLED", "True"]
    run = choose_runtime(args.runtime).configure(args.config_file, overrides)
    weights = run.result_weights
    if args.weights:
        weights = ResultWeights(args.weights, "--weights", "--weights")
    problems = []
    if args.batch_size < 1:
        problems.append(f"--batch-size must be at least 1; got {args.batch_size}")
    if not 0 <= args.alpha <= 1:
        problems.append(f"--alpha must be from 0 to 1; got {args.alpha}")
    if args.no_overlay and args.no_labels:
        problems.append("--no-overlay and --no-labels leave nothing to write")
    raise_problems(
        problems,
        result_problems(weights, fetches=run.FETCHES),
        folder_problems(args.output, "--output"),
    )
    task = _task(run, args.data_set)
    style = PredictionStyle(
        alpha=args.alpha,
        overlay=not args.no_overlay,
        values=not args.no_labels,
        official=args.official_values,
    )
    raise_problems(task.style_problems(style))
    inputs = find_inputs(args.input, args.output)
    raise_problems(output_problems(inputs, args.output, task, style))
    logger.info("%s", weights)
    try:
        model = run.build()
        run.load(model, weights.path, complete=True)
        settings = run.evaluation_settings()
    except ValueError as error:
        raise SetupError([str(error)]) from error
    raise_problems(
        finite_problems(model, weights.path, "the model"),
        inference_problems(settings.inference, model) if run.own_mapper else [],
    )
    model.to(choose_device(run.device, args.num_gpus)).eval()
    predictor = Predictor(settings, model, task)
    images = [item for item in inputs if not item.is_video]
    videos = [item for item in inputs if item.is_video]
    broken = _predict_images(images, predictor, style, args)
    broken_videos = _predict_videos(videos, predictor, style, args)
    done = len(images) - len(broken), len(videos) - len(broken_videos)
    print(f"Predicted {done[0]} images and {done[1]} videos into {args.output}")
    if unusable := broken + broken_videos:
        lines = "\n  ".join(unusable)
        raise DataError(f"{len(unusable)} of {len(inputs)} inputs can't be used:\n  {lines}")


def _predict_images(
    images: Sequence[Input], predictor: Predictor, style: PredictionStyle, args: argparse.Namespace
) -> list[str]:
    """Write the predictions of images; returns what is wrong with those that can't be used."""
    unusable: list[str] = []
    task = predictor.task
    batches = batches_of(images, args.batch_size, task.dataset.spec.window, unusable)
    for batch in progress(batches, "predicting"):
        try:
            predictions = predictor([image for _, image in batch])
        except DataError as error:  # they have one size
            unusable += [f"{item.path}: {error}" for item, _ in batch]
            continue
        for (item, image), values in zip(batch, predictions, strict=True):
            task.write(args.output, item.name, image, values, style)
    return unusable


def _predict_videos(
    videos: Sequence[Input], predictor: Predictor, style: PredictionStyle, args: argparse.Namespace
) -> list[str]:
    """Write the predictions of videos; returns what is wrong with those that can't be used."""
    unusable = []
    for path, name in videos:
        try:
            predict_video(
                path,
                args.output,
                predictor,
                predictor.task,
                style,
                batch_size=args.batch_size,
                name=name,
            )
        except DataError as error:
            text = str(error)
            unusable.append(text if str(path) in text else f"{path}: {text}")
    return unusable


def _spec(run: Runtime, name: str | None) -> DatasetSpec | None:
    """The data set whose colours and values are used; None where the config names none."""
    names = [name] if name else [*run.test_names, *run.train_names]
    for candidate in names[:1]:
        try:
            return get_spec(candidate)
        except KeyError as error:  # of the config, it may be one of Detectron2's
            if name:
                raise SetupError([f"--data-set: {error.args[0]}"]) from error
        except DataError as error:  # its images may need a window: nothing is guessed
            raise SetupError(
                [f"{error}. Put it there, or name another data set: --data-set NAME"]
            ) from error
    return None


def _own_spec(run: Runtime) -> DatasetSpec | None:
    """Of the config's own data sets; None where they aren't there."""
    try:
        return _spec(run, None)
    except SetupError:
        return None


def _task(run: Runtime, name: str | None) -> Task:
    """The task of the data set whose colours and values are used, if the model fits it.

    Raises:
        SetupError: the data set named isn't known, has other classes than the model, or is of
            another task.
    """
    channels, spec = run.channels, _spec(run, name)
    if spec is not None:
        task = task_of(Dataset(spec, [], LabelMap(channels)))
        own = _own_spec(run) if name else spec
        if own is not None and own.task != spec.task:
            raise SetupError(
                [f"--data-set {name}: its task is {spec.task}, the model's {own.task}"]
            )
        if own is None:
            logger.warning(
                "Whether the model's task is that of %s (%s) can't be seen, since none of the "
                "config's data sets is there",
                name,
                spec.task,
            )
        wrong = task.channel_problems(channels)
        if not wrong and own is not None:
            models = task_of(Dataset(own, [], LabelMap(channels)))
            wrong = [] if models.channel_problems(channels) else models.mixing_problems(task)
        if not wrong:
            return task
        if name:
            raise SetupError(
                [f"--data-set {name}: {text}. Name one that fits the model" for text in wrong]
            )
        logger.warning(
            "%s. Its colours and values aren't used: classes are called by their numbers. "
            "--data-set NAME names another data set",
            "; ".join(wrong),
        )
    return SemanticSegmentation.without_data(channels, spec.window if spec else None)


if __name__ == "__main__":
    sys.exit(main())
