"""Compare ways of training over several seeds: means, and whether they differ by more than chance.

A way is NAME=FOLDERS, the output folders of its runs: several after commas, or with * and ?. The
first is what the others are compared with, over the seeds that both were run with, e.g.

    tools/compare.py student='output/student_s*' afdcd='output/distilled_s*'
"""

from __future__ import annotations

import argparse
import glob
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from afdcd.cli.common import report_errors
from afdcd.config import differing
from afdcd.engine.results import FinishedRun, read_run
from afdcd.study import paired_difference
from afdcd.utils.paths import expanded
from afdcd.utils.problems import SetupError

# Of every run its own.
OWN_KEYS = ("SEED", "OUTPUT_DIR")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="compare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("ways", nargs="+", metavar="NAME=FOLDERS", help="the first is the baseline")
    p.add_argument("--metric", default="mIoU", help="a figure of results.json, e.g. PQ (mIoU)")
    p.add_argument("--data-set", metavar="NAME", help="which, if the runs were tested on several")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    ways: dict[str, list[FinishedRun]] = {}
    for way in args.ways:
        name, sign, patterns = way.partition("=")
        if not (sign and name and patterns):
            raise SetupError(
                ["a way is NAME=FOLDERS, e.g. student='output/student_s*'; got " + way]
            )
        if name in ways:
            raise SetupError([f"two ways are called {name}"])
        ways[name] = read_runs(patterns)
    figures = {
        name: {run.seed: figure(run, args.metric, args.data_set) for run in runs}
        for name, runs in ways.items()
    }
    print(by_seed(figures, args.metric))
    for line in [*within(ways), *between(ways, figures)]:
        print(f"\n{line}")


def read_runs(patterns: str) -> list[FinishedRun]:
    """The runs in the folders that patterns, after commas, name.

    Raises:
        SetupError: there is none, one isn't finished, or two have one seed.
    """
    runs: dict[int, FinishedRun] = {}
    problems = []
    for pattern in patterns.split(","):
        try:
            # Not Path.glob, which takes no absolute pattern.
            found = glob.glob(expanded(pattern))  # noqa: PTH207
        except ValueError as error:
            problems.append(str(error))
            continue
        folders = sorted(Path(path) for path in found if Path(path).is_dir())
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


def by_seed(figures: Mapping[str, Mapping[int, float]], metric: str) -> str:
    """A line a seed, and means and deviations (divided by n - 1)."""
    seeds = sorted({seed for way in figures.values() for seed in way})
    rows = [
        [f"seed {seed}", *(f"{w[seed]:.2f}" if seed in w else "-" for w in figures.values())]
        for seed in seeds
    ]
    ways = [list(way.values()) for way in figures.values()]
    rows.append(["mean", *(f"{statistics.mean(way):.2f}" for way in ways)])
    rows.append(["deviation", *(f"{statistics.stdev(w):.2f}" if w[1:] else "-" for w in ways)])
    return tabulate(
        rows,
        headers=[metric, *figures],
        disable_numparse=True,
        colalign=("left",) + ("right",) * len(figures),
    )


def within(ways: Mapping[str, Sequence[FinishedRun]]) -> list[str]:
    """What runs of one way differ in beside the seed: then they aren't of one way."""
    lines = []
    for name, runs in ways.items():
        changed = sorted({key for run in runs for key in _changes(runs[0], run)})
        if changed:
            lines.append(f"Not all runs of {name} have the same settings: {', '.join(changed)}")
    return lines


def between(
    ways: Mapping[str, Sequence[FinishedRun]], figures: Mapping[str, Mapping[int, float]]
) -> list[str]:
    """What each way differs by from the first, in figures, settings and time."""
    base, *others = ways
    lines = []
    for name in others:
        found = paired_difference(figures[base], figures[name])
        if found is None:
            text = f"{name} and {base} have fewer than two seeds in common: nothing can be said"
        else:
            sure = "" if found.p <= 0.05 else ": could be chance"
            text = (
                f"{name} - {base}: {found.mean:+.2f}, standard error {found.error:.2f}, over "
                f"{len(found.seeds)} seeds; p = {found.p:.2g} (sign-flip test){sure}"
            )
        seconds = [statistics.median(run.seconds for run in ways[way]) for way in (name, base)]
        text += f"\n  training took {seconds[0]:.0f} s, not {seconds[1]:.0f} s (medians)"
        for key, (was, now) in _changes(ways[base][0], ways[name][0]).items():
            text += f"\n  {key}: {was} -> {now}"
        lines.append(text)
    return lines


def _changes(one: FinishedRun, two: FinishedRun) -> dict[str, tuple[Any, Any]]:
    found = differing(one.settings, two.settings)
    return {key: pair for key, pair in found.items() if key not in OWN_KEYS}


if __name__ == "__main__":
    sys.exit(main())
