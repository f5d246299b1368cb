"""Write one HTML file of a run, several runs, or a comparison; it opens offline.

A RUN is the folder (OUTPUT_DIR) of a finished training, or NAME=FOLDERS as of compare.py. Folders
whose settings differ in nothing but the seed are one way of training, e.g.

    tools/report.py output/quickstart/teacher output/quickstart/student output/quickstart/distilled
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from afdcd.analysis import find_ways, write_report
from afdcd.cli.common import add_runtime_flag, choose_runtime, report_errors
from afdcd.utils.paths import path_flag
from afdcd.utils.problems import SetupError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("runs", nargs="+", metavar="RUN", help="folder, or NAME=FOLDERS")
    p.add_argument("--output", type=path_flag, default=Path("report.html"), help="file to write")
    p.add_argument("--images", type=int, default=200, help="to choose the shown ones from (200)")
    p.add_argument("--panels", type=int, default=16, help="images to show; 0 for none (16)")
    add_runtime_flag(p)
    return p


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
