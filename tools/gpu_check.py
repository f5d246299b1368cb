#!/usr/bin/env python
"""Check what runs on a GPU, in minutes. See --help, and afdcd/cli/gpu_check.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.gpu_check import main

if __name__ == "__main__":
    sys.exit(main())
