"""A dry run of a config: find what is wrong with data, weights, taps, losses, memory; say the fix.

Exit code 0: OK; 1: there is something to fix.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import torch

from afdcd.commands.train_net import has_detectron2
from afdcd.doctor import Report, diagnose
from afdcd.doctor.runtime import detectron2_runtime, embedded_runtime
from afdcd.preflight import INSTALL_DETECTRON2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="doctor.py", description=__doc__)
    p.add_argument("--config-file", required=True, metavar="FILE", help="YAML config")
    p.add_argument("--full", action="store_true", help="open every file, not a sample")
    p.add_argument("--json", action="store_true", help="print JSON instead of text")
    p.add_argument(
        "--runtime",
        choices=("auto", "detectron2", "embedded"),
        default="auto",
        help="auto: Detectron2 where it is installed",
    )
    p.add_argument("--device", help="to measure on (MODEL.DEVICE)")
    p.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    overrides = [word for word in args.opts if word != "--"]
    try:
        report = _diagnose(args, overrides)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report.json() if args.json else report.text())
    return 0 if report.ok else 1


def _diagnose(args: argparse.Namespace, overrides: list[str]) -> Report:
    failed = Report()
    wanted = args.runtime
    if wanted == "detectron2" and not has_detectron2():
        failed.fix("runtime", f"--runtime detectron2: it is not installed. {INSTALL_DETECTRON2}")
        return failed
    try:
        device = torch.device(args.device) if args.device else None
    except RuntimeError as error:
        failed.fix("config", f"--device: {error}")
        return failed
    use_detectron2 = wanted == "detectron2" or (wanted == "auto" and has_detectron2())
    runtime = detectron2_runtime() if use_detectron2 else embedded_runtime()
    return diagnose(args.config_file, overrides, runtime, full=args.full, device=device)


if __name__ == "__main__":
    sys.exit(main())
