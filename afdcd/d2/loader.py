"""Detectron2's loaders with AfDCD's mapper and resumable order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from afdcd.d2.datasets import find_dataset
from afdcd.d2.mappers import MAPPERS
from afdcd.data import DataError
from afdcd.data.build import loading_settings
from afdcd.data.stream import Echo, RecordedViews, RecordList, Sample, SampleStream
from afdcd.tasks import Task
from afdcd.utils.user_modules import after_user_modules


class ResumableSampler(Sampler[int]):
    """The numbers of this process's samples from an iteration on, without end.

    Iteration i of batch size B consists of samples i * B to (i + 1) * B - 1, whatever the number of
    processes; each takes a run of them.
    """

    def __init__(self, batch_size: int, first: int) -> None:
        self.batch_size, self.first = batch_size, first
        # Asked for here: a loader process, where this is iterated, may not know of the others.
        self.rank, self.processes = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        share = self.batch_size // self.processes
        start = self.first * self.batch_size + self.rank * share
        while True:
            yield from range(start, start + share)
            start += self.batch_size


def training_loader(
    cfg: Any, task: Task, *, seed: int, first: int, views: RecordedViews | None = None
) -> Any:
    """Batches from iteration ``first`` on, for the mapper of the paper.

    ``views`` are those of a recorded teacher: see `SampleStream`.
    """
    stream = loading_settings(cfg).stream(task.dataset.records, task.targets(), seed, views)
    return _echoed(cfg, _Checked(_batches(cfg, stream, first)), first)


def detectron2_training_loader(
    cfg: Any, *, seed: int, first: int, views: RecordedViews | None = None
) -> Any:
    """Batches with Detectron2's own data sets, mapper and augmentation, in a resumable order.

    Images aren't grouped by aspect ratio (``DATALOADER.ASPECT_RATIO_GROUPING``), which would make
    the order depend on how far the loader has read.
    """
    stream = task_stream(cfg, seed=seed, views=views)
    return _echoed(cfg, _batches(cfg, stream, first), first)


def _batches(cfg: Any, stream: SampleStream, first: int) -> Any:
    workers = cfg.DATALOADER.NUM_WORKERS
    return build_detection_train_loader(
        stream,
        mapper=None,
        sampler=ResumableSampler(cfg.SOLVER.IMS_PER_BATCH, first // cfg.DATALOADER.ECHO),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,
        num_workers=workers,
        # Pinned, so that copies to a GPU don't wait.
        pin_memory=torch.device(cfg.MODEL.DEVICE).type == "cuda",
        prefetch_factor=4 if workers else None,
    )


def _echoed(cfg: Any, loader: Any, first: int) -> Any:
    echo = cfg.DATALOADER.ECHO
    return loader if echo == 1 else Echo(loader, times=echo, first=first)


def task_records(cfg: Any) -> list[dict[str, Any]]:
    """The training records of Detectron2's own data sets."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
    )


def task_stream(cfg: Any, *, seed: int, views: RecordedViews | None = None) -> SampleStream:
    """Samples of Detectron2's own data sets, mapper and augmentation, in a resumable order."""
    mapper = _SeededMapper(MAPPERS.get(cfg.INPUT.MAPPER)(cfg, True))
    return SampleStream(task_records(cfg), mapper, seed, views)


def evaluation_loader(cfg: Any, name: str) -> Any:
    """Whole images in batches of one, shared among the processes."""
    if cfg.INPUT.MAPPER != "scale_crop":
        mapper = after_user_modules(MAPPERS.get(cfg.INPUT.MAPPER)(cfg, False))
        return build_detection_test_loader(cfg, name, mapper=mapper)
    dataset = find_dataset(name)
    records = RecordList(dataset.records, loading_settings(cfg).evaluation_mapper())
    loader = build_detection_test_loader(
        records,
        mapper=None,
        sampler=InferenceSampler(len(records)),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return _Checked(loader)


class _SeededMapper:
    """Detectron2's mapper, which draws from numpy's global generator, seeded by the sample."""

    def __init__(self, mapper: Any) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
        return self.mapper(record)


class _Checked:
    """A loader whose unusable samples raise DataError in the main process."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.dataset: TorchDataset[Any] = loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in self.loader:
            for sample in batch:
                if "error" in sample:
                    raise DataError(sample["error"])
            yield batch
