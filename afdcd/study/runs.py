"""The finished runs of a way of training, and the figure that ways are compared by."""

from __future__ import annotations

import glob
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afdcd.config import differing
from afdcd.engine.results import FinishedRun, read_run
from afdcd.utils.paths import expanded
from afdcd.utils.problems import SetupError

ITERATIONS = "SOLVER.MAX_ITER"
# Of every run its own.
OWN_KEYS = frozenset({"SEED", "OUTPUT_DIR"})


@dataclass(frozen=True)
class Way:
    """A way of training: its runs, one for each seed.

    Attributes:
        name: of the way.
        runs: one or more.
        figures: by seed.
    """

    name: str
    runs: Sequence[FinishedRun]
    figures: Mapping[int, float]

    @property
    def iterations(self) -> int:
        """Of a run."""
        return int(self.runs[0].settings.get(ITERATIONS, 0))

    @property
    def distilled(self) -> bool:
        """Whether there is a teacher."""
        return self.runs[0].settings.get("MODEL.META_ARCHITECTURE") == "Distiller"

    @property
    def training(self) -> float:
        """Seconds that a run trained: the median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def recording(self) -> float:
        """Seconds that a record of the teacher's targets took: the most that a run says."""
        return max(run.seconds_recording for run in self.runs)

    @property
    def seconds(self) -> float:
        """Seconds of a run that makes its own record: training and recording."""
        return self.training + self.recording


def read_runs(patterns: str) -> list[FinishedRun]:
    """The runs in the folders that patterns, after commas, name.

    Where the whole text names folders, their names hold the commas.

    Raises:
        SetupError: there is none, one isn't finished, or two have one seed.
    """
    runs: dict[int, FinishedRun] = {}
    problems = []
    for pattern in _separated(patterns):
        try:
            folders = _folders(pattern)
        except ValueError as error:
            problems.append(str(error))
            continue
        if not folders:
            problems.append(f"no folder {pattern}")
        for folder in folders:
            try:
                run = read_run(folder)
            except ValueError as error:
                problems.append(str(error))
                continue
            if run.seed in runs:
                problems.append(f"{runs[run.seed].folder} and {folder} both have seed {run.seed}")
            runs[run.seed] = run
    if problems:
        raise SetupError(problems)
    return [runs[seed] for seed in sorted(runs)]


def _separated(patterns: str) -> list[str]:
    with suppress(ValueError):  # said of the part that it is in
        if _folders(patterns):
            return [patterns]
    return patterns.split(",")


def _folders(pattern: str) -> list[Path]:
    # Not Path.glob, which takes no absolute pattern.
    found = glob.glob(expanded(pattern))  # noqa: PTH207
    return sorted(Path(path) for path in found if Path(path).is_dir())


def figure(run: FinishedRun, metric: str, data_set: str | None) -> float:
    """A run's figure.

    Raises:
        SetupError: it has none, or several.
    """
    names = ", ".join(run.figures) or "nothing"
    if data_set is not None and data_set not in run.figures:
        raise SetupError([f"{run.folder} was tested on {names}, not on {data_set}"])
    found = {
        (name, key): value
        for name, figures in run.figures.items()
        for key, value in figures.items()
        if data_set in (None, name) and metric in (key, key.rpartition(".")[2])
    }
    if len(found) > 1:
        titles = ", ".join(f"{key} on {name}" for name, key in found)
        raise SetupError(
            [f"{run.folder} has several {metric} ({titles}): name one, or choose by --data-set"]
        )
    if not found:
        keys = sorted({k for figures in run.figures.values() for k in figures if "-" not in k})
        raise SetupError([f"{run.folder} has no {metric}: there are {', '.join(keys)}"])
    (value,) = found.values()
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SetupError([f"{run.folder}: {metric} is {value}"])
    return float(value)


def changes(one: FinishedRun, two: FinishedRun) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two runs, with both values, but for `OWN_KEYS`."""
    found = differing(one.settings, two.settings)
    return {key: pair for key, pair in found.items() if key not in OWN_KEYS}
