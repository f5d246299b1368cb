"""Loading samples: which one comes when is a function of the seed and the iteration alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from afdcd.data import DataError, DenseMapper
from afdcd.data.spec import Record
from afdcd.data.stream import Echo, RecordList, Sample, SampleStream


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group; stopping is the main process's business."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_list(batch: list[Sample]) -> list[Sample]:
    return batch


def _own_generator() -> torch.Generator:
    """Keeps a loader from drawing from the global generator, whose state dropout depends on."""
    return torch.Generator().manual_seed(0)


def _checked(loader: DataLoader[Sample]) -> Iterator[list[Sample]]:
    for batch in loader:
        for sample in batch:
            if "error" in sample:
                raise DataError(sample["error"])
        yield batch


def training_batches(
    stream: SampleStream,
    *,
    batch_size: int,
    first: int,
    last: int,
    workers: int = 0,
    pin_memory: bool = False,
    echo: int = 1,
) -> Iterator[list[Sample]]:
    """The batches of iterations ``first`` to ``last - 1``, each loaded one for ``echo`` of them.

    Raises:
        DataError: a file can't be used.
    """
    numbers = [
        range(iteration * batch_size, (iteration + 1) * batch_size)
        for iteration in range(first // echo, -(-last // echo))
    ]
    loader: DataLoader[Sample] = DataLoader(
        stream,
        batch_sampler=numbers,  # type: ignore[arg-type]  # any sized iterable of index lists
        num_workers=workers,
        collate_fn=_as_list,
        worker_init_fn=_ignore_interrupts,
        generator=_own_generator(),
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
    return iter(Echo(_checked(loader), times=echo, first=first))


def evaluation_batches(
    records: list[Record], mapper: DenseMapper, *, workers: int = 0
) -> Iterator[list[Sample]]:
    """Each record's whole image, in batches of one.

    Raises:
        DataError: a file can't be used.
    """
    loader: DataLoader[Sample] = DataLoader(
        RecordList(records, mapper),
        batch_size=1,
        num_workers=workers,
        collate_fn=_as_list,
        worker_init_fn=_ignore_interrupts,
        generator=_own_generator(),
    )
    return _checked(loader)
