"""Write one HTML file of a run, several runs, or a comparison; it opens offline.

A RUN is the folder (OUTPUT_DIR) of a finished training, or NAME=FOLDERS as of compare.py. Folders
whose settings differ in nothing but the seed are one way of training, e.g.

    tools/report.py output/quickstart/teacher output/quickstart/student output/quickstart/distilled
"""

from __future__ import annotations

import argparse
from pathlib import Path

from afdcd.cli.arguments.flags import add_runtime_flag
from afdcd.utils.paths import path_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("runs", nargs="+", metavar="RUN", help="folder, or NAME=FOLDERS")
    p.add_argument("--output", type=path_flag, default=Path("report.html"), help="file to write")
    p.add_argument("--images", type=int, default=200, help="to choose the shown ones from (200)")
    p.add_argument("--panels", type=int, default=16, help="images to show; 0 for none (16)")
    add_runtime_flag(p)
    return p
