"""The data sets of a run with this package's mapper, all kinds together."""

from __future__ import annotations

from typing import NamedTuple

from afdcd.checks.data import find_tasks, task_problems
from afdcd.checks.unlabeled import find_unlabeled_sets, overlap_problems
from afdcd.data.unlabeled import UnlabeledImages, joined
from afdcd.engine.runtime import Runtime
from afdcd.tasks import Task, task_of


class TrainingData(NamedTuple):
    """What a run is trained and scored on.

    Attributes:
        train, test: the tasks on the labelled data sets.
        unlabeled: images that only the teacher teaches on.
    """

    train: list[Task]
    test: list[Task]
    unlabeled: list[UnlabeledImages]

    @property
    def together(self) -> Task:
        """The task on all training images. There must be a labelled data set to know it by."""
        labeled = [task.dataset for task in self.train]
        return task_of(joined((self.train or self.test)[0].dataset, labeled, self.unlabeled))


def find_training_data(run: Runtime, problems: list[str]) -> TrainingData:
    """The data sets that a config names; what is wrong with them joins ``problems``.

    Their files aren't opened yet.
    """
    unlabeled = find_unlabeled_sets(run, problems)
    train, test = (
        find_tasks(names, f"DATASETS.{key}", problems, run.find_dataset, needed=needed)
        for key, names, needed in (
            ("TRAIN", run.train_names, not run.unlabeled_names),
            ("TEST", run.test_names, True),
        )
    )
    problems += task_problems(train, test, run.channels, run.ignore_value)
    problems += overlap_problems(unlabeled, test)
    return TrainingData(train, test, unlabeled)
