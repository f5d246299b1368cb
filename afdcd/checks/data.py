"""Data sets: whether they are there, fit the model and each other, and can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from afdcd.data import DataError, Dataset
from afdcd.data.settings import LoadingSettings
from afdcd.data.spec import Record
from afdcd.evaluation.settings import InferenceSettings
from afdcd.tasks import Task, task_of
from afdcd.utils.findings import Report
from afdcd.utils.problems import Problem

# Of a data set with more files than this, this many are opened before training, evenly spread.
FILES_CHECKED = 1000


def find_tasks(
    names: Sequence[str],
    key: str,
    problems: list[str],
    load: Callable[[str], Dataset],
    *,
    needed: bool = True,
) -> list[Task]:
    """The tasks on the data sets of a config's key; what fails joins ``problems``.

    Args:
        names: of the data sets.
        key: such as ``DATASETS.TRAIN``.
        problems: a list to add to.
        load: finds a data set by its name.
        needed: whether there must be one.
    """
    found = []
    if not names and needed:
        problems.append(Problem(f"{key} is empty: name a data set", "dataset"))
    # A training set named twice counts twice; scores have one place each.
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice and key == "DATASETS.TEST":
        text = f"{key} names {', '.join(twice)} twice: name each data set once"
        problems.append(Problem(text, "dataset"))
    for name in names:
        try:
            found.append(task_of(load(name)))
        except KeyError as error:
            problems.append(Problem(f"{key}: {error.args[0]}", "dataset"))
        except (DataError, ValueError, OSError, AssertionError) as error:
            problems.append(Problem(f"{key}: {error}", "dataset"))
    return found


def task_problems(
    train: Sequence[Task], test: Sequence[Task], channels: int, ignore_value: int
) -> list[str]:
    """Whether data sets fit the model and each other.

    Args:
        train, test: the tasks on them.
        channels: of the model's output.
        ignore_value: label that the model's head leaves out of its loss.
    """
    problems = [text for task in [*train, *test] for text in task.channel_problems(channels)]
    problems += [text for task in train for text in task.ignore_problems(ignore_value)]
    if any(task.targets() != train[0].targets() for task in train[1:]):
        problems.append(
            Problem("DATASETS.TRAIN: the data sets store their labels in different ways", "dataset")
        )
    for number, one in enumerate([*train, *test]):
        for other in [*train, *test][number + 1 :]:
            problems += _kind_problems(one, other) or one.mixing_problems(other)
    problems += _leak_problems(train, test)
    return list(dict.fromkeys(problems))


def _kind_problems(one: Task, other: Task) -> list[str]:
    if type(one) is type(other):
        return []
    first, second = one.dataset.spec, other.dataset.spec
    tasks = f"{first.name} is of the task {first.task}, {second.name} of {second.task}"
    return [Problem(f"{tasks}, but a run has one task", "dataset")]


def real_files(records: Iterable[Record]) -> set[str]:
    """Images' paths, links resolved; those of a folder once."""
    real_folder = lru_cache(maxsize=None)(Path.resolve)

    def real(name: str) -> str:
        path = Path(name)
        path = real_folder(path.parent) / path.name
        return str(path.resolve() if path.is_symlink() else path)

    return {real(record["file_name"]) for record in records}


def _leak_problems(train: Sequence[Task], test: Sequence[Task]) -> list[str]:
    """Whether an image is both trained on and scored."""
    if not train or not test:
        return []
    trained, scored = (
        [real_files(task.dataset.records) for task in tasks] for tasks in (train, test)
    )
    return [
        _leak(one.dataset, other.dataset, shared)
        for one, files in zip(train, trained, strict=True)
        for other, others in zip(test, scored, strict=True)
        if (shared := files & others)
    ]


def _leak(one: Dataset, other: Dataset, shared: set[str]) -> Problem:
    return Problem(
        f"{one.spec.name} and {other.spec.name} share {len(shared)} images, e.g. "
        f"{min(shared)}: scores would be of images trained on (to score the training set, "
        "train first, then add --eval-only)",
        "leak",
    )


def check_files(
    train: Sequence[Task],
    test: Sequence[Task],
    loading: LoadingSettings,
    inference: InferenceSettings,
    report: Report,
    *,
    limit: int | None = FILES_CHECKED,
) -> None:
    """Open the data sets' files and judge what they hold; training and doctor do the same.

    Args:
        train, test: the tasks on them.
        loading: how they are loaded.
        inference: how the test images are predicted.
        report: takes what is found.
        limit: files of each data set, evenly spread; None for all.
    """
    if train:
        train[0].check_training_files(train[1:], limit=limit, report=report)
    for task in train:
        check_sizes(task.dataset.spec.name, task.dataset.records, loading, report)
    for task in test:
        task.check_files(limit=limit, training=False, report=report)
        report.fix_problems(_scale_problems(task.dataset, loading, inference))


def _scale_problems(
    dataset: Dataset, loading: LoadingSettings, inference: InferenceSettings
) -> list[str]:
    """Whether the smallest of ``TEST.SCALES`` leaves nothing of an image."""
    smallest = min(inference.scales)
    for record in dataset.records:
        side = min(record["height"], record["width"])
        side = loading.test_short_side or side
        if int(side * smallest) < 1:
            name = f"{dataset.spec.name}: {record['file_name']}"
            size = f"{record['height']}x{record['width']}"
            return [
                Problem(
                    f"TEST.SCALES {smallest:g} leaves no pixel of {name} ({size}): use larger "
                    "factors, or leave the image out",
                    "inference",
                )
            ]
    return []


def check_sizes(
    name: str, records: Sequence[Record], loading: LoadingSettings, report: Report
) -> None:
    """Whether a data set's images fill the crop."""
    if loading.augmentation is None:
        return
    height, width = loading.augmentation.crop_size
    largest, short = loading.augmentation.scales[1], loading.train_short_side
    always = sometimes = 0
    for record in records:
        h, w = record["height"], record["width"]
        factor = short / min(h, w) if short else 1.0
        filled = min(h * factor / height, w * factor / width)
        always += filled * largest < 1
        sometimes += filled < 1
    total = len(records)
    crop = f"the crop INPUT.SCALE_CROP.SIZE {height}x{width}"
    if always > total / 2:
        report.fix(
            "small-images",
            f"{name}: {always} of {total} images are smaller than {crop} even at the largest "
            f"scale {largest:g}: they are always padded. Use a smaller crop or larger SCALES",
        )
    elif sometimes:
        report.note(
            "small-images",
            f"{name}: {sometimes} of {total} images are smaller than {crop} at scale 1, and "
            "padded there",
        )


def file_problems(
    train: Sequence[Task],
    test: Sequence[Task],
    loading: LoadingSettings,
    inference: InferenceSettings,
) -> list[str]:
    """What stands in the way in the data sets' files: see `check_files`."""
    report = Report()
    check_files(train, test, loading, inference, report)
    return [finding.text for finding in report.to_fix]
