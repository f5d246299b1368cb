#!/usr/bin/env python
"""Check what runs on a GPU, in minutes. See --help, and afdcd/cli/gpu_check.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.entry import run_command

if __name__ == "__main__":
    sys.exit(run_command("gpu_check"))
