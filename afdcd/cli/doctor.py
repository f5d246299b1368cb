"""A dry run of a config: find what is wrong, and say the fix."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import torch

from afdcd.checks.diagnose import diagnose
from afdcd.cli.arguments.doctor import parser
from afdcd.cli.common import (
    choose_runtime,
    overrides_of,
)
from afdcd.utils.findings import Report
from afdcd.utils.problems import SetupError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    overrides = overrides_of(args)
    try:
        report = _diagnose(args, overrides)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report.json() if args.json else report.text())
    return 0 if report.ok else 1


def _diagnose(args: argparse.Namespace, overrides: list[str]) -> Report:
    try:
        device = torch.device(args.device) if args.device else None
        runtime = choose_runtime(args.runtime)
    except (RuntimeError, SetupError) as error:
        failed = Report()
        failed.fix("config", str(error))
        return failed
    return diagnose(args.config_file, overrides, runtime, full=args.full, device=device)


if __name__ == "__main__":
    sys.exit(main())
