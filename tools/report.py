#!/usr/bin/env python
"""Write one report of several runs. See --help, and afdcd/cli/report.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.entry import run_command

if __name__ == "__main__":
    sys.exit(run_command("report"))
