"""``results.json``: what a finished run reached, and reading it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afdcd.config import flat_values
from afdcd.engine.state import TrainingState
from afdcd.utils.files import write_json
from afdcd.utils.strict_yaml import read_strict_yaml

RESULTS = "results.json"
# The whole config, as a run starts with it.
CONFIG_COPY = "config.yaml"


def results_of(state: TrainingState, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``results.json``.

    Seconds are those of training, of recording the teacher's targets, and of both together.
    ``times_student`` is what a step cost in times the student's own, null where that wasn't
    measured: of a student alone, and of runs that were too short.

    Args:
        state: at the end of a run.
        figures: by data set, then by task (with Detectron2) and by name.
    """
    return {
        "figures": dict(figures),
        "teacher": state.teacher_figures,
        "best": state.best,
        "iterations": state.iteration,
        "seconds": state.seconds,
        "seconds_recording": state.recording_seconds,
        "seconds_together": state.seconds + state.recording_seconds,
        "seconds_per_step": state.seconds / max(state.iteration, 1),
        "times_student": state.times_student,
        "seed": state.seed,
    }


def write_results(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write ``results.json``; figures that don't exist, of classes that never occur, are null."""
    path = folder / RESULTS
    write_json(path, results)
    return path


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left in its folder.

    Attributes:
        folder: its.
        seed: of the run.
        figures: by data set, values by name: ``mIoU``, or with the task, ``sem_seg.mIoU``.
        seconds: of training.
        settings: values by dotted key.
        seconds_recording: of recording the teacher's targets.
        times_student: forward and backward passes of a step in times those of the student alone;
            None where that wasn't measured.
        metric: the figure that decided which student was best; empty where none did.
    """

    folder: Path
    seed: int
    figures: Mapping[str, Mapping[str, Any]]
    seconds: float
    settings: Mapping[str, Any]
    seconds_recording: float = 0.0
    times_student: float | None = None
    metric: str = ""

    @property
    def seconds_together(self) -> float:
        """Of training and of recording the teacher's targets."""
        return self.seconds + self.seconds_recording


def read_run(folder: Path) -> FinishedRun:
    """What a run left in its folder; of an older one, without what it didn't write yet.

    Raises:
        ValueError: it has no results, or not those of a run.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"{folder} holds no {RESULTS}: not a run's folder, or it isn't finished")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        times = content.get("times_student")
        return FinishedRun(
            folder,
            int(content["seed"]),
            {name: flat_values(figures) for name, figures in content["figures"].items()},
            float(content["seconds"]),
            flat_values(read_strict_yaml(folder / CONFIG_COPY)),
            float(content.get("seconds_recording", 0.0)),
            None if times is None else float(times),
            str(content.get("best", {}).get("metric", "")),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = "it holds something else"
        if isinstance(error, KeyError):
            why = f"it has no {error}"
        elif isinstance(error, (OSError, ValueError)):
            why = f"it can't be read ({error})"
        raise ValueError(
            f"{folder / RESULTS} isn't what a finished run writes: {why:.200}. Leave the folder "
            "out, or finish its run"
        ) from error
