"""Where the figures of a run go: ``metrics.json``, TensorBoard, and the progress on the screen."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from afdcd.utils.files import drop_later_lines, json_line
from afdcd.utils.progress import clock, shows_bars

logger = logging.getLogger(__name__)

# Figures of a training line with a place and a unit of their own, or none; the rest is losses.
_SHOWN_APART = ("lr", "seconds_per_step", "images_per_second", "data_time", "data_share")


class MetricsFile:
    """``metrics.json``: a JSON object a line, as Detectron2 writes it.

    Args:
        path: of the file; made if need be.
        resume_at: the first iteration to come; lines of that and later ones, which a crash may
            have left behind, are dropped.
    """

    def __init__(self, path: Path, *, resume_at: int) -> None:
        drop_later_lines(path, resume_at)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed by close)

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Append a line and flush it. Figures that don't exist, of classes never seen, are null."""
        self._file.write(json_line({"iteration": iteration, **figures}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class RunMetrics:
    """All the places at once.

    Args:
        folder: of the run.
        first, last: iterations to come: ``first`` to ``last - 1``.
        title: of the progress bar.
    """

    def __init__(self, folder: Path, *, first: int, last: int, title: str) -> None:
        self._file = MetricsFile(folder / "metrics.json", resume_at=first)
        self._board = SummaryWriter(str(folder), purge_step=first)
        self._bar = (
            tqdm(total=last, initial=first, desc=title, unit="it", dynamic_ncols=True)
            if shows_bars()
            else None
        )
        self._last, self._first, self._started = last, first, time.monotonic()
        self._score, self._losses = "", ""

    def step(self, iteration: int) -> None:
        """An iteration is done."""
        if self._bar is not None:
            self._bar.update(iteration + 1 - self._bar.n)

    def training(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Losses, learning rate and times since the last call."""
        self.write(iteration, figures)
        shown = {name: value for name, value in figures.items() if name not in _SHOWN_APART}
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._bar is not None:
            self._losses = text.replace("loss_", "")  # there is little room
            self._show()
            return
        done = iteration + 1 - self._first
        remaining = (time.monotonic() - self._started) / done * (self._last - iteration - 1)
        logger.info(
            "iteration %d/%d  %s  lr %.4g  %.3f s/step  %.3g images/s  %.0f%% waiting for data  "
            "eta %s",
            iteration + 1,
            self._last,
            text,
            figures["lr"],
            figures["seconds_per_step"],
            figures["images_per_second"],
            100 * figures["data_share"],
            clock(remaining),
        )

    def scored(
        self, metric: str, value: float, *, best: float | None, teacher: float | None
    ) -> None:
        """The student's last score, for the bar: beside the best so far and the teacher's.

        Args:
            metric: name of the score.
            value: of the last evaluation.
            best, teacher: None where there is none.
        """
        beside = [
            f"{name} {v:.4g}" for name, v in (("best", best), ("teacher", teacher)) if v is not None
        ]
        self._score = f"{metric} {value:.4g}" + (f" ({', '.join(beside)})" if beside else "")
        self._show()

    def _show(self) -> None:
        """The score first: what a narrow terminal cuts off is at the end."""
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(filter(None, (self._score, self._losses))))

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Figures of any kind, to the files alone."""
        self._file.write(iteration, figures)
        for name, value in figures.items():
            self._board.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._bar is not None:
            self._bar.close()
