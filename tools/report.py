#!/usr/bin/env python
"""Write one report of several runs. See --help, and afdcd/cli/report.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from afdcd.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
