"""Look into a distilled student: its features, what it gained and lost by class, hard cases.

A RUN is the folder (OUTPUT_DIR) of a finished training. The first that distils says who the teacher
is; one without a teacher, on the same data set, is the student alone, e.g.

    tools/analyze.py output/quickstart/student output/quickstart/distilled --output analysis
"""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import add_runtime_flag
from afdcd.utils.paths import expanded, path_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("runs", nargs="+", type=path_flag, metavar="RUN", help="folder of a training")
    p.add_argument("--output", required=True, type=path_flag, help="folder to write to")
    p.add_argument("--limit", type=int, help="images, evenly spread (all)")
    p.add_argument(
        "--teacher-weights", type=expanded, default="", help="where they are now, if they moved"
    )
    add_runtime_flag(p)
    return p
