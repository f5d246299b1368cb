#!/usr/bin/env python
"""Measure time and memory of a training step. See --help, and afdcd/cli/benchmark.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.entry import run_command

if __name__ == "__main__":
    sys.exit(run_command("benchmark"))
