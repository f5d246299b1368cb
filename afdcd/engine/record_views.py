"""Recording a teacher's views ahead of training."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from afdcd.data import DataError
from afdcd.data.stream import ViewList
from afdcd.distill import Distiller
from afdcd.engine.precision import autocast
from afdcd.engine.recording import Recording, open_recording
from afdcd.engine.runtime import Runtime
from afdcd.engine.step import to_device
from afdcd.utils.progress import byte_count, clock

logger = logging.getLogger(__name__)

# Views after which the time that was spent is noted.
_NOTED_EVERY = 50


def build_recorder(run: Runtime, device: torch.device) -> tuple[Distiller, Recording]:
    """The distiller of a config with its live teacher, and the record, brought together.

    Raises:
        SetupError: see `open_recording` and `Recording.bind`.
        ConfigError, CheckpointError, TapError, ValueError: the teacher can't be built or loaded.
    """
    recording = open_recording(run, run.training_records())
    assert recording is not None
    distiller, _ = run.distiller(run.build(), recording=recording, live=True)
    distiller.to(device)
    with autocast(run.training_settings().precision, device):
        stream = run.training_stream(seed=max(run.seed, 0), views=recording.views)
        recording.bind(distiller, stream, device)
    return distiller, recording


def record_views(
    run: Runtime,
    distiller: Distiller,
    recording: Recording,
    chosen: Sequence[tuple[int, int]],
    done: Callable[[], Any],
) -> None:
    """Record some views, but for those that another process has recorded in the meantime.

    Args:
        run: the student's config.
        distiller, recording: of `build_recorder`.
        chosen: (image, view) of each.
        done: called after each.

    Raises:
        DataError: a file can't be used.
        OSError: the disk can't be written.
    """
    device = next(distiller.parameters()).device
    settings, store = run.training_settings(), recording.store
    stream = run.training_stream(seed=max(run.seed, 0), views=recording.views)
    loader = DataLoader(
        ViewList(stream, chosen),
        batch_size=None,
        num_workers=settings.loading.workers,
        pin_memory=device.type == "cuda",
    )
    record = distiller.record
    assert record is not None
    try:
        for number, sample in enumerate(loader):
            if "error" in sample:
                raise DataError(sample["error"])
            if not store.path(*chosen[number]).is_file():
                with autocast(settings.precision, device):
                    distiller.record_views([to_device(sample, device)])
                if record.broken:
                    raise OSError(
                        f"{recording.folder} can't be written: make room, then give the same "
                        "command again; what is recorded stays"
                    )
            done()
            if number % _NOTED_EVERY == 0:
                recording.note_seconds(record.seconds)
    finally:
        recording.note_seconds(record.seconds)


def describe_costs(
    run: Runtime, distiller: Distiller, recording: Recording, processes: int
) -> list[tuple[int, int]]:
    """Say how many bytes and about how long the missing views take, from recording the first.

    Returns:
        (image, view) of those that are missing then.
    """
    missing = recording.missing_views()
    if not missing:
        return []
    start = time.perf_counter()
    record_views(run, distiller, recording, missing[:1], lambda: None)  # compiles, reserves
    start, count = time.perf_counter(), min(4, len(missing) - 1)
    record_views(run, distiller, recording, missing[1 : 1 + count], lambda: None)
    seconds = (time.perf_counter() - start) / max(count, 1)
    rest = missing[1 + count :]
    each = recording.bytes_per_view(distiller)
    free = shutil.disk_usage(recording.folder).free
    logger.info(
        "%d views to record: %s of the %s that the disk has, about %s at %.3f s each%s",
        len(rest),
        byte_count(each * len(rest)),
        byte_count(free),
        clock(len(rest) * seconds / processes),
        seconds,
        f" in {processes} processes" if processes > 1 else "",
    )
    return rest
