"""Look into a distilled student: its features, what it gained and lost by class, hard cases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from afdcd.analysis import analyze, open_run, subject_of
from afdcd.analysis.figures import write_figures
from afdcd.cli.arguments.analyze import parser
from afdcd.cli.common import choose_runtime, report_errors
from afdcd.utils.files import write_json
from afdcd.utils.folders import folder_problems
from afdcd.utils.problems import SetupError, raise_problems


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    limit = args.limit
    raise_problems(
        [f"--limit must be at least 1; got {limit}"] if limit is not None and limit < 1 else [],
        folder_problems(args.output, "--output"),
    )
    runtime, folder = choose_runtime(args.runtime), Path(args.output)
    try:
        runs = [open_run(run, runtime, teacher_weights=args.teacher_weights) for run in args.runs]
        subject = subject_of(runs)
        content = analyze(subject, limit=limit)
    except ValueError as error:  # weights or taps that don't fit
        raise SetupError([str(error)]) from error
    write_json(folder / "analysis.json", content)
    figures = write_figures(content, subject.task.dataset.spec.colors, folder)
    for name, tap in content["taps"].items():
        print(f"{name}: linear CKA {_words(tap['linear CKA'])}")
    print(f"{content['images']} images; pixels right, in percent:")
    for group, values in content["hard cases"]["pixels right"].items():
        print(f"  {group}: {_words(values)}")
    print(f"Written: {folder / 'analysis.json'} and {len(figures)} figures beside it")


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{title} {value:.3g}" for title, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
