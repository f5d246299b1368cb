"""Several finished runs in figures: what the report's JSON holds."""

from __future__ import annotations

import json
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import afdcd
from afdcd.engine.results import RESULTS, FinishedRun
from afdcd.study import (
    Way,
    at_zero,
    changes,
    classes_of,
    cost_lines,
    figure,
    paired_difference,
    read_runs,
)
from afdcd.tasks import TASKS
from afdcd.utils.problems import SetupError

# Points of a curve.
POINTS = 120
_SEED = re.compile(r"[_-]?s(eed)?[_-]?\d+$")


def find_ways(words: Sequence[str]) -> dict[str, list[FinishedRun]]:
    """Finished runs by the way that they were trained.

    Args:
        words: folders, which are sorted by their settings, and ``NAME=FOLDERS`` as of compare.

    Raises:
        SetupError: a folder isn't a finished run's, or two of one name have one seed.
    """
    ways: dict[str, list[FinishedRun]] = {}
    loose = []
    for word in words:
        name, sign, patterns = word.partition("=")
        if sign and name and patterns and not Path(word).exists():
            ways[name] = [*ways.get(name, []), *read_runs(patterns)]
        else:
            loose.append(word)
    for word in loose:
        for run in read_runs(word):
            for runs in ways.values():
                if run.seed not in {r.seed for r in runs} and not changes(runs[0], run):
                    runs.append(run)
                    break
            else:
                name = _SEED.sub("", run.folder.name) or run.folder.name
                ways[name if name not in ways else str(run.folder)] = [run]
    return ways


def summarize(ways: Mapping[str, Sequence[FinishedRun]]) -> dict[str, Any]:
    """Scores, intervals over seeds, curves, cost, classes and settings.

    Returns:
        ready for JSON: ``metric``, ``higher_is_better``, ``ways`` (``name``, ``role``, ``runs``,
        ``score``, ``gain``, ``cost``, ``classes``), ``settings``, ``remarks``, ``versions``.

    Raises:
        SetupError: the runs were scored by different metrics, or have none.
    """
    stored = {run.folder: _stored(run) for runs in ways.values() for run in runs}
    metrics = {s.get("best", {}).get("metric", "mIoU") for s in stored.values()}
    if len(metrics) > 1:
        raise SetupError([f"the runs are scored by {', '.join(sorted(metrics))}: name alike ones"])
    (metric,) = metrics
    higher = all(t.HIGHER_IS_BETTER for t in map(TASKS.get, TASKS.names()) if metric == t.METRIC)
    known = {
        name: Way(name, runs, {run.seed: figure(run, metric, _first(run)) for run in runs})
        for name, runs in ways.items()
    }
    roles = {name: _role(way, known) for name, way in known.items()}
    # Best known first: the teacher, the student alone, the distilled ones.
    order = sorted(known, key=lambda name: ("teacher", "alone", "distilled").index(roles[name]))
    base = next((known[name] for name in order if roles[name] == "alone"), None)
    rows = []
    for name in order:
        way = known[name]
        rows.append(
            {
                "name": name,
                "role": roles[name],
                "score": interval(list(way.figures.values())),
                "gain": _gain(base, way) if base and roles[name] == "distilled" else None,
                "cost": _cost(way, base),
                "classes": _mean_classes(way),
                "runs": [_run(run, metric, stored[run.folder]) for run in way.runs],
            }
        )
    students = [known[name] for name in order if roles[name] != "teacher"]
    classes = {w.name: [classes_of(run.figures, _first(run)) for run in w.runs] for w in students}
    first = [known[name].runs[0] for name in order]
    differing = sorted({key for run in first[1:] for key in changes(first[0], run)})
    return {
        "metric": metric,
        "higher_is_better": higher,
        "ways": rows,
        "settings": {key: [run.settings.get(key) for run in first] for key in differing},
        "remarks": [*cost_lines(students, metric), *at_zero(classes)],
        "versions": {
            "AfDCD": afdcd.__version__,
            "Python": platform.python_version(),
            "PyTorch": str(torch.__version__),
            "NumPy": np.__version__,
            "OpenCV": cv2.__version__,
        },
    }


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, and Student's 95 % confidence interval; without one for a single value."""
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": count}
    # Imported here because it takes a second.
    from scipy.stats import t

    reach = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "seeds": count}


def _first(run: FinishedRun) -> str | None:
    """The data set that decides which student is best."""
    return next(iter(run.figures), None)


def _stored(run: FinishedRun) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder / RESULTS).read_text(encoding="utf-8"))
    return content


def _role(way: Way, ways: Mapping[str, Way]) -> str:
    if way.distilled:
        return "distilled"
    folders = {run.folder.resolve() for run in way.runs}
    key = "MODEL.DISTILLER.TEACHER.WEIGHTS"
    weights = [str(run.settings.get(key)) for w in ways.values() if w.distilled for run in w.runs]
    return "teacher" if any(Path(path).resolve().parent in folders for path in weights) else "alone"


def _gain(base: Way, way: Way) -> dict[str, Any]:
    found = paired_difference(base.figures, way.figures)
    if found is not None:
        return {
            "over": base.name,
            "mean": found.mean,
            "error": found.error,
            "p": found.p,
            "seeds": len(found.seeds),
        }
    gain = statistics.mean(way.figures.values()) - statistics.mean(base.figures.values())
    return {"over": base.name, "mean": gain, "error": None, "p": None, "seeds": 1}


def _cost(way: Way, base: Way | None) -> dict[str, Any]:
    measured = [run.times_student for run in way.runs if run.times_student is not None]
    return {
        "seconds": way.training,
        "seconds_recording": way.recording,
        "seconds_per_step": way.training / max(way.iterations, 1),
        "iterations": way.iterations,
        "times_student": statistics.median(measured) if measured else None,
        "times_alone": way.seconds / max(base.seconds, 1e-9) if base else None,
    }


def _mean_classes(way: Way) -> dict[str, float]:
    runs = [classes_of(run.figures, _first(run)) for run in way.runs]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.mean(run[name] for run in runs if name in run) for name in names}


def _run(run: FinishedRun, metric: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "seed": run.seed,
        "figures": run.figures,
        "teacher": stored.get("teacher", {}).get(metric),
        "seconds": run.seconds,
        "seconds_recording": run.seconds_recording,
        "times_student": run.times_student,
        "curves": curves(run.folder / "metrics.json", metric),
    }


def curves(path: Path, metric: str) -> dict[str, list[list[float]]]:
    """Losses, and scores by the metric, as [iterations done, value]; at most `POINTS` of each.

    Args:
        path: of a run's ``metrics.json``; nothing where it is gone. Lines that a crash cut off are
            left out.
        metric: whose scores.
    """
    found: dict[str, list[list[float]]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            figures = json.loads(line)
        except ValueError:
            continue
        for name, value in figures.items():
            wanted = name.startswith("loss_") or name == "total_loss"
            if (wanted or re.split(r"[/.]", name)[-1] == metric) and value is not None:
                found.setdefault(name, []).append([figures["iteration"] + 1, value])
    return {name: _thinned(points) for name, points in found.items()}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """Every n-th point, the last one among them."""
    step = -(-len(points) // POINTS)
    return points[::-1][::step][::-1]
