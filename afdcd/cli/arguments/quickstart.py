"""A first look: a teacher, a student alone, and the same student with Af-DCD, in minutes on a CPU.

All three are trained on synthetic street scenes with the configs in configs/quickstart; student and
distilled student have one seed, schedule and initialization. Running it again goes on where it
stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from afdcd.cli.arguments.flags import add_overrides
from afdcd.utils.paths import config_flag, path_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "--configs", type=config_flag, default="configs/quickstart", help="folder of the three"
    )
    p.add_argument(
        "--output", type=path_flag, default=Path("output/quickstart"), help="where to write"
    )
    add_overrides(p)
    return p
