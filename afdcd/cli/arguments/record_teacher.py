"""Record a teacher ahead of training: what losses compare with, for every view of every image.

Where it records, and of which views, is MODEL.DISTILLER.TEACHER.RECORD (docs/recording.md). It says
first how many bytes and about how long it takes. Stopped at any moment, the same command goes on;
it may be given several times at once, on several machines that share the folder.
"""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import add_config_flag, add_overrides, add_runtime_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flag(p)
    p.add_argument("--processes", type=int, help="at once (default: one for each GPU, else one)")
    p.add_argument("--estimate", action="store_true", help="say what it takes, and stop")
    add_runtime_flag(p)
    add_overrides(p)
    return p
