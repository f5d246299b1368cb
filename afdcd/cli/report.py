"""Write one HTML file of a run, several runs, or a comparison; it opens offline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from afdcd.analysis import find_ways, write_report
from afdcd.cli.arguments.report import parser
from afdcd.cli.common import choose_runtime, report_errors
from afdcd.utils.folders import folder_problems
from afdcd.utils.problems import SetupError, raise_problems


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)
    return report_errors(lambda: _main(args, words))


def _main(args: argparse.Namespace, words: Sequence[str]) -> None:
    if args.images < 1 or args.panels < 0:
        raise SetupError(
            [f"--images must be above 0, --panels at least 0; got {args.images}, {args.panels}"]
        )
    is_folder = [f"--output {args.output} is a folder: name a file"] if args.output.is_dir() else []
    raise_problems(is_folder, folder_problems(args.output.parent, "--output"))
    write_report(
        find_ways(args.runs),
        args.output,
        choose_runtime(args.runtime),
        command=["python", "tools/report.py", *words],
        images=args.images,
        panels=args.panels,
    )
    print(f"Report: {args.output} (open it in a browser)")


if __name__ == "__main__":
    sys.exit(main())
