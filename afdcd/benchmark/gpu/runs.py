"""Short trainings on a device: precisions, a resumed run, a recorded teacher.

Equal runs are equal to the last bit on a CPU. Some of PyTorch's sums on a GPU are not made in the
same order each time, so there two runs of one config differ, and by more with every step. What
that alone does is measured by training the same config twice; runs that ought to be equal may
differ by `TIMES_REPEATED` times as much.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from afdcd.benchmark.gpu.numerics import relative_error
from afdcd.benchmark.gpu.rows import Check, Figure
from afdcd.data.view_store import ViewStore
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure
from afdcd.engine.loss_log import TOTAL

TEACHER = "MODEL.DISTILLER.TEACHER"
# Of the mean total loss to float32's: both a rounding and, in float16, the steps that are left out
# until the scale of the losses fits.
PRECISION_LIMITS = {"bfloat16": 0.1, "float16": 0.2}
TIMES_REPEATED = 4.0
# Below this no difference on a GPU counts: float32 has 1.2e-7.
LEAST_LIMIT = 1e-5


@dataclass(frozen=True)
class Outcome:
    """What a run ends with.

    Attributes:
        losses: mean of each since the last checkpoint, by name; ``total_loss`` among them.
        weights: all that was trained, one behind the other.
    """

    losses: dict[str, float]
    weights: torch.Tensor

    def difference(self, other: Outcome) -> float:
        """The relative difference of weights or losses, whichever is larger."""
        names = sorted(self.losses)
        one, two = (torch.tensor([of.losses[n] for n in names]) for of in (self, other))
        return max(relative_error(self.weights, other.weights), relative_error(one, two))


@dataclass
class Trial:
    """Runs of a config, each in a folder of its own.

    Args:
        distilled: config file of the student with its teacher.
        teacher: config file of the teacher, which is trained first where it has no weights.
        folder: of all runs; also of the data, where ``DETECTRON2_DATASETS`` names a folder in it.
        device: to train on.
        weights: the teacher's; by default those of its run here.
        iterations: of each run; half of them before the run is stopped.
        teacher_iterations: of the teacher.
        overrides: of the student, KEY VALUE pairs.
        dims: principal components of the recorded teacher's map.
    """

    distilled: Path
    teacher: Path
    folder: Path
    device: str
    weights: Path | None = None
    iterations: int = 12
    teacher_iterations: int = 20
    overrides: tuple[str, ...] = ()
    dims: int = 16
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    @cached_property
    def teacher_weights(self) -> Path:
        """The teacher's weights, trained when they are first asked for."""
        if self.weights is None:
            words = ["SOLVER.MAX_ITER", str(self.teacher_iterations)]
            self._run(self.teacher, "teacher", *words)
            self.weights = self.folder / "teacher/student_final.pth"
        return self.weights

    def _run(self, config: Path, name: str, *overrides: str, resume: bool = False) -> None:
        own = ["OUTPUT_DIR", str(self.folder / name), "MODEL.DEVICE", self.device]
        with _cudnn_settings():
            run(configure(str(config), [*own, *overrides]), resume=resume)

    def train(self, name: str, *overrides: str, resume: bool = False) -> Outcome:
        """Train the student; a run of a name that is known already isn't repeated.

        Args:
            name: of the run and its folder.
            overrides: beside `overrides`.
            resume: go on from the checkpoint in its folder.
        """
        if name not in self._outcomes:
            words = [f"{TEACHER}.WEIGHTS", str(self.teacher_weights)]
            words += ["SOLVER.MAX_ITER", str(self.iterations), "SOLVER.CHECKPOINTS_KEPT", "9"]
            words += ["SOLVER.CHECKPOINT_PERIOD", str(self.iterations), *self.overrides]
            self._run(self.distilled, name, *words, *overrides, resume=resume)
            self._outcomes[name] = _outcome(self.folder / name)
        return self._outcomes[name]

    def stop_and_resume(self) -> Outcome:
        """From the first checkpoint of the run ``halves`` to the end, as after a crash."""
        half = self.iterations // 2
        words = ("SOLVER.CHECKPOINT_PERIOD", str(half))
        self.train("halves", *words)
        stopped = self.folder / "resumed"
        shutil.copytree(self.folder / "halves", stopped)
        for name in ("model_final.pth", "student_final.pth", "model_best.pth", "results.json"):
            (stopped / name).unlink(missing_ok=True)
        (stopped / "last_checkpoint").write_text(f"model_{half - 1:07d}.pth")
        return self.train("resumed", *words, resume=True)

    def record(self, name: str, record: str) -> Outcome:
        """A run with compact targets from the record in the folder ``record``."""
        words = [f"{TEACHER}.RECORD.FOLDER", str(self.folder / record)]
        words += [f"{TEACHER}.RECORD.VIEWS", "1"]
        words += ["MODEL.DISTILLER.LOSSES.afdcd.DIMS", str(self.dims)]
        return self.train(name, *words)

    def same_run(self, one: Outcome, other: Outcome) -> Figure:
        """How far runs that ought to be equal are apart, and how far they may be."""
        apart = one.difference(other)
        if self.device == "cpu":
            return Figure(apart, 0.0, "equal to the last bit")
        again = self.train("float32").difference(self.train("float32, again"))
        note = f"not bit by bit: the same run twice differs by {again:.2g}"
        return Figure(apart, max(TIMES_REPEATED * again, LEAST_LIMIT), note)


@contextmanager
def _cudnn_settings() -> Iterator[None]:
    """What a run sets for its process, as before afterwards."""
    before = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _outcome(folder: Path) -> Outcome:
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    last = [row for row in rows if TOTAL in row][-1]
    losses = {
        # What isn't finite is null in JSON.
        name: math.nan if value is None else float(value)
        for name, value in last.items()
        if name.startswith("loss_") or name == TOTAL
    }
    content = torch.load(folder / "model_final.pth", map_location="cpu", weights_only=True)
    parts = [content["model"], content["distiller"]]
    return Outcome(losses, torch.cat([_flat(part) for part in parts]))


def _flat(state: dict[str, Any]) -> torch.Tensor:
    values = [v for v in state.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
    return torch.cat([value.double().flatten() for value in values])


def precision_check(trial: Trial, dtype: str) -> Check:
    """A training in bfloat16 or float16, or in float32 twice: finite losses, near float32's."""

    def measure() -> dict[str, Figure]:
        exact = trial.train("float32")
        if dtype == "float32":
            # One that isn't finite would have stopped the run, too.
            finite = all(math.isfinite(value) for value in exact.losses.values())
            return {"losses that aren't finite": Figure(0.0 if finite else 1.0, 0.0)}
        words = ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype)
        low = trial.train(dtype, *words).losses[TOTAL]
        apart = abs(low / exact.losses[TOTAL] - 1)
        return {"loss, from float32's": Figure(apart, PRECISION_LIMITS[dtype])}

    return Check(f"training, {trial.iterations} iterations, {dtype}", measure)


def resume_check(trial: Trial) -> Check:
    """A run that is stopped in the middle and resumed, against one that isn't."""

    def measure() -> dict[str, Figure]:
        resumed = trial.stop_and_resume()
        return {"from the uninterrupted run": trial.same_run(resumed, trial.train("halves"))}

    return Check("training, stopped and resumed", measure)


def recording_check(trial: Trial) -> Check:
    """A run that records its teacher as it goes, and the same run with what is recorded."""

    def measure() -> dict[str, Figure]:
        recorded = trial.record("recording", "record")
        store = ViewStore(trial.folder / "record/views")
        before = set(store.there())
        read = trial.record("recorded", "record")
        more = len(set(store.there()) - before)
        return {
            "read, from recorded as it goes": trial.same_run(read, recorded),
            "views recorded in vain": Figure(float(more), 0.0, f"{len(before)} views"),
        }

    return Check(f"training, recorded teacher, {trial.dims} components", measure)


@contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """Let the data sets' folder be one of our own, for this process and those it starts."""
    name = "DETECTRON2_DATASETS"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
