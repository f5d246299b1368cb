"""The order of training samples: a function of the seed and the sample's number alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from afdcd.data.labels import DataError
from afdcd.data.mapper import DenseMapper
from afdcd.data.spec import Record
from afdcd.data.view_store import ViewStore
from afdcd.data.views import ViewPlan
from afdcd.utils.sample_keys import ECHO, RECORDED, UNLABELED, VIEW
from afdcd.utils.user_modules import USER_MODULES

# Streams of random numbers of their own; 1 is that of the augmentation.
_LABELED, _UNLABELED = 0, 2
Sample = dict[str, Any]
TrainingMapper = Callable[[Record, np.random.Generator], Sample]


class RecordedViews(NamedTuple):
    """Views whose teacher is recorded.

    Attributes:
        plan: which views there are.
        store: what is recorded of them.
        used: whether a sample's teacher is asked for, by its number; that of every one by default.
    """

    plan: ViewPlan
    store: ViewStore
    used: Callable[[int], bool] | None = None


class BatchMix(NamedTuple):
    """How labelled and unlabelled images are mixed in a batch, the same in each.

    They are spread evenly over it: of parts that divide both numbers, each has equally many.

    Attributes:
        batch: images in all.
        unlabeled: those without labels, more than none and fewer than all.
    """

    batch: int
    unlabeled: int

    def place(self, number: int) -> tuple[bool, int]:
        """Whether a sample is unlabelled, and its number among those of its kind."""
        batch, place = divmod(number, self.batch)
        before = place * self.unlabeled // self.batch
        if (place + 1) * self.unlabeled // self.batch > before:
            return True, batch * self.unlabeled + before
        return False, batch * (self.batch - self.unlabeled) + place - before


class SampleStream(Dataset[Sample]):
    """An endless stream of training samples, shuffled anew each epoch.

    Sample number n, with its augmentation, depends on the seed and n only, so a resumed run goes on
    exactly where it stopped, with any number of loader processes.

    Args:
        records: of the training images, those without labels after the others.
        mapper: from records to samples.
        seed: of the run.
        views: where given, each sample whose teacher is asked for shows one of its image's views;
            it says which under ``view``, and under ``recorded`` holds what is recorded of it. The
            others are augmented anew, as without a record: a student that only ever sees the same
            few views learns them by heart.
        mix: of labelled and unlabelled images, each shuffled by themselves; needed where there are
            both.

    Raises:
        ValueError: the records' order and ``mix`` don't fit.
    """

    def __init__(
        self,
        records: list[Record],
        mapper: TrainingMapper,
        seed: int,
        views: RecordedViews | None = None,
        mix: BatchMix | None = None,
    ) -> None:
        flags = [bool(record.get(UNLABELED)) for record in records]
        self._labeled = len(flags) - sum(flags)
        if flags != sorted(flags) or (mix is None) != (self._labeled in (0, len(flags))):
            raise ValueError(
                f"{self._labeled} labelled images must come before {sum(flags)} unlabelled ones, "
                f"with a mix where there are both; got {mix}"
            )
        self.mix = mix
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.views = views
        # What only a teacher needs isn't made for views that are recorded.
        self._student_mapper: TrainingMapper = (
            mapper.without_teacher() if isinstance(mapper, DenseMapper) else mapper
        )
        self._order = lru_cache(maxsize=4)(self._epoch_order)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.records, self.mapper, self.seed, self.views, self.mix)
        return _restored, (USER_MODULES, type(self), *arguments)

    def _epoch_order(self, kind: int, count: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, kind, epoch)).permutation(count)

    def _shuffled(self, kind: int, count: int, number: int) -> int:
        epoch, position = divmod(number, count)
        return int(self._order(kind, count, epoch)[position])

    def image(self, number: int) -> int:
        """The index of the image that a sample shows."""
        if self.mix is None:
            return self._shuffled(_LABELED, len(self.records), number)
        unlabeled, number = self.mix.place(number)
        if not unlabeled:
            return self._shuffled(_LABELED, self._labeled, number)
        count = len(self.records) - self._labeled
        return self._labeled + self._shuffled(_UNLABELED, count, number)

    def __getitem__(self, number: int) -> Sample:
        image = self.image(number)
        if self.views is None:
            return self._augmented(self.mapper, image, number)
        if self.views.used is None or self.views.used(number):
            view = self.views.plan.choice(self.seed, number)
            recorded = self.views.store.read(image, view)
            return self.view(self.views.plan, image, view, recorded)
        return self._augmented(self._student_mapper, image, number)

    def view(
        self,
        plan: ViewPlan,
        image: int,
        view: int,
        recorded: dict[str, torch.Tensor] | None = None,
    ) -> Sample:
        """The sample of a view.

        Args:
            plan: that the view belongs to.
            image, view: which one.
            recorded: what is recorded of it.
        """
        mapper = self.mapper if recorded is None else self._student_mapper
        sample = self._sample(mapper, image, plan.rng(image, view))
        sample[VIEW] = (image, view)
        if recorded is not None:
            sample[RECORDED] = recorded
        return sample

    def _augmented(self, mapper: TrainingMapper, image: int, number: int) -> Sample:
        return self._sample(mapper, image, np.random.default_rng((self.seed, 1, number)))

    def _sample(self, mapper: TrainingMapper, image: int, rng: np.random.Generator) -> Sample:
        try:
            return mapper(self.records[image], rng)
        except DataError as error:  # raised in the main process, without a worker's traceback
            return {"error": str(error)}


class Echo:
    """A loader's batches, each given several times in a row.

    Samples say under ``echo`` which batch they are of, and how often that will come again.

    Args:
        loader: of batches, from number ``first // times`` on.
        times: how often each is given, 1 or more.
        first: number of the first batch to give, counted with repetitions.
    """

    def __init__(self, loader: Iterable[list[Sample]], *, times: int, first: int) -> None:
        self.loader, self.times, self.first = loader, times, first

    def __iter__(self) -> Iterator[list[Sample]]:
        number, done = divmod(self.first, self.times)
        for batch in self.loader:
            for count in range(done, self.times):
                again = self.times - 1 - count
                yield [{**sample, ECHO: (number, again)} for sample in batch]
            number, done = number + 1, 0


class ViewList(Dataset[Sample]):
    """Some views of a stream's images, as a teacher is to see them.

    Args:
        stream: of samples that are views.
        chosen: (image, view) of each.
    """

    def __init__(self, stream: SampleStream, chosen: Sequence[tuple[int, int]]) -> None:
        self.stream, self.chosen = stream, chosen

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (USER_MODULES, type(self), self.stream, self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        assert self.stream.views is not None
        return self.stream.view(self.stream.views.plan, *self.chosen[index])


class RecordList(Dataset[Sample]):
    """The samples of a data set in their order, for evaluation."""

    def __init__(self, records: list[Record], mapper: Callable[[Record], Sample]) -> None:
        self.records = records
        self.mapper = mapper

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (USER_MODULES, type(self), self.records, self.mapper)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        try:
            return self.mapper(self.records[index])
        except DataError as error:
            return {"error": str(error)}


def _restored(user_modules: object, kind: Callable[..., Any], *arguments: Any) -> Any:
    """A stream or list in a loader process that doesn't share its parent's memory.

    What the user's modules define is imported before the records and the mapper are unpickled.
    """
    return kind(*arguments)
