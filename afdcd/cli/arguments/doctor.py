"""A dry run of a config: find what is wrong with data, weights, taps, losses, memory; say the fix.

Exit code 0: OK; 1: there is something to fix.
"""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import add_config_flag, add_overrides, add_runtime_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    add_config_flag(p)
    p.add_argument("--full", action="store_true", help="open every file, not a sample")
    p.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_runtime_flag(p)
    p.add_argument("--device", help="to measure on (MODEL.DEVICE)")
    add_overrides(p)
    return p
