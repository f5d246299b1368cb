"""Ways of training, compared over several seeds: see `afdcd.cli.arguments.compare`."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from afdcd.cli.arguments.compare import parser
from afdcd.cli.common import report_errors
from afdcd.study import (
    Way,
    at_zero,
    basis,
    changes,
    class_table,
    classes_of,
    cost_lines,
    figure,
    paired_difference,
    read_runs,
)
from afdcd.utils.problems import SetupError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    ways: dict[str, Way] = {}
    metric = args.metric
    for text in args.ways:
        name, sign, patterns = text.partition("=")
        if not (sign and name and patterns):
            raise SetupError(
                ["a way is NAME=FOLDERS, e.g. student='output/student_s*'; got " + text]
            )
        if name in ways:
            raise SetupError([f"two ways are called {name}"])
        runs = read_runs(patterns)
        metric = metric or runs[0].metric or "mIoU"
        figures = {run.seed: figure(run, metric, args.data_set) for run in runs}
        ways[name] = Way(name, runs, figures)
    chosen = list(ways.values())
    print(by_seed({way.name: way.figures for way in chosen}, metric))
    for line in [*within(chosen), *between(chosen), *cost_lines(chosen, metric)]:
        print(f"\n{line}")
    classes = {
        way.name: [classes_of(run.figures, args.data_set) for run in way.runs] for way in chosen
    }
    if table := class_table(classes):
        print(f"\n{table}")
    if zeros := at_zero(classes):
        print("\n".join(["", *zeros]))


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


def within(ways: Sequence[Way]) -> list[str]:
    """What runs of one way differ in beside the seed: then they aren't of one way."""
    lines = []
    for way in ways:
        changed = sorted({key for run in way.runs for key in changes(way.runs[0], run)})
        if changed:
            lines.append(f"Not all runs of {way.name} have the same settings: {', '.join(changed)}")
    return lines


def between(ways: Sequence[Way]) -> list[str]:
    """What each way differs by from the first, in figures, settings and time."""
    base, *others = ways
    lines = []
    for way in others:
        found = paired_difference(base.figures, way.figures)
        if found is None:
            text = (
                f"{way.name} and {base.name} have fewer than two seeds in common: nothing can be "
                "said"
            )
        else:
            sure = "" if found.p <= 0.05 else ": could be chance"
            text = (
                f"{way.name} - {base.name}: {found.mean:+.2f}, standard error {found.error:.2f}, "
                f"over {len(found.seeds)} seeds; p = {found.p:.2g} (sign-flip test){sure}"
            )
        text += (
            f"\n  {basis(base, way)}: training took {_seconds(way)}, not {_seconds(base)} (medians)"
        )
        for key, (was, now) in changes(base.runs[0], way.runs[0]).items():
            text += f"\n  {key}: {was} -> {now}"
        lines.append(text)
    return lines


def _seconds(way: Way) -> str:
    recording = f" and recording {way.recording:.0f} s" if way.recording else ""
    return f"{way.training:.0f} s{recording}"


if __name__ == "__main__":
    sys.exit(main())
