"""A recorded teacher: its targets of views, stored once and read instead of running it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from afdcd.distill.encoding import Encoding
from afdcd.distill.targets import Target
from afdcd.utils.sample_keys import RECORDED, VIEW

logger = logging.getLogger(__name__)

Compute = Callable[[dict[str, Any]], Mapping[str, torch.Tensor]]


class Store(Protocol):
    """Where tensors of views go: `afdcd.data.view_store.ViewStore`."""

    @property
    def folder(self) -> Path: ...

    def write(self, image: int, view: int, tensors: Mapping[str, torch.Tensor]) -> None: ...


class TeacherRecord:
    """The targets of each (image, view), as far as they are recorded; the rest is computed.

    What was just computed passes through the encoding, too, so that a run sees the same values
    whether a view was recorded before, by another process, or in this step. A view is always
    computed alone, since a network's rounding depends on the number of images in a batch.

    Args:
        store: of the views.
        targets: what a view's file holds.
        channels: of the targets, by `Target.name`.
        encoding: of the maps.

    Attributes:
        seconds: spent on computing and writing targets in this process.
        broken: whether a file couldn't be written, so that nothing is recorded any more.
    """

    def __init__(
        self,
        store: Store,
        targets: Sequence[Target],
        channels: Mapping[str, int],
        encoding: Encoding,
    ) -> None:
        self.store, self.targets, self.encoding = store, tuple(targets), encoding
        self.channels = dict(channels)
        self.seconds = 0.0
        self.broken = False

    def gather(
        self, batched_inputs: Sequence[dict[str, Any]], targets: Sequence[Target], compute: Compute
    ) -> dict[str, torch.Tensor]:
        """The targets [N, C, H, W] of samples, by name, in float32, on the samples' device.

        Maps of different sizes are padded with zeros at the bottom and right.

        Args:
            batched_inputs: samples with their view, and with the tensors of those recorded.
            targets: some of the record's.
            compute: the live teacher's targets [1, C, H, W], by name, of a sample; all of the
                record's.

        Raises:
            ValueError: a sample doesn't say which view it shows.
        """
        found: dict[str, list[torch.Tensor]] = {target.name: [] for target in targets}
        for item in batched_inputs:
            tensors = item.get(RECORDED)
            if tensors is None:
                tensors = self.record(item, compute)
            for target in targets:
                channels = self.channels[target.name]
                found[target.name].append(self.encoding.decode(target, channels, tensors))
        return {name: _stacked(maps) for name, maps in found.items()}

    def record(self, item: Mapping[str, Any], compute: Compute) -> dict[str, torch.Tensor]:
        """Compute a sample's targets and write them; the tensors, on the targets' device.

        A disk that can't be written ends the recording, with a warning, and not the run.
        """
        if VIEW not in item:
            raise ValueError(
                "a recorded teacher takes samples of numbered views (SampleStream with a ViewPlan)"
            )
        start = time.perf_counter()
        maps = compute(dict(item))
        tensors: dict[str, torch.Tensor] = {}
        for target in self.targets:
            tensors |= self.encoding.encode(target, maps[target.name][0])
        if not self.broken:
            try:
                image, view = item[VIEW]
                self.store.write(image, view, tensors)
            except OSError as error:
                self.broken = True
                logger.warning(
                    "%s can't be written (%s): the teacher is run in every step from now on. "
                    "What is recorded stays",
                    self.store.folder,
                    error.strerror or error,
                )
        self.seconds += time.perf_counter() - start
        return tensors


class SecondsLog:
    """How long a record took, in all processes that worked on it.

    Args:
        folder: of the record.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "seconds"
        self._own = self._folder / f"{os.getpid()}_{time.time_ns()}.txt"

    def note(self, seconds: float) -> None:
        """Say how many this process has spent so far; zero isn't noted."""
        if seconds <= 0:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._own.write_text(f"{seconds:.3f}\n", encoding="utf-8")
        except OSError:
            pass  # a full disk is spoken of elsewhere

    def total(self) -> float:
        """Of all processes so far."""
        total = 0.0
        for path in self._folder.glob("*.txt"):
            try:
                total += float(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # cut short
        return total


def _stacked(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps [C, H, W] as one [N, C, H, W] of their largest height and width."""
    height = max(item.shape[1] for item in maps)
    width = max(item.shape[2] for item in maps)
    return torch.stack(
        [F.pad(item, (0, width - item.shape[2], 0, height - item.shape[1])) for item in maps]
    )
