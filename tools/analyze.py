#!/usr/bin/env python
"""Look into a distilled student. See --help, and afdcd/cli/analyze.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.entry import run_command

if __name__ == "__main__":
    sys.exit(run_command("analyze"))
