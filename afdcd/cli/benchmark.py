"""Time and memory of a training step and its parts, beside the plain published formulation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from afdcd.benchmark.machine import LoadMeter, describe_machine, idle_load
from afdcd.cli.arguments.benchmark import parser
from afdcd.cli.benchmark_timed import contrast, scaling, step
from afdcd.cli.benchmark_trained import errors
from afdcd.cli.common import report_errors
from afdcd.config import ConfigError
from afdcd.utils.files import write_json
from afdcd.utils.problems import SetupError

TIMED = {"step": step, "contrast": contrast, "scaling": scaling}
# The load of the machine doesn't matter to these.
UNTIMED = {"errors": errors}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    # Intermixed, since positional words (what, overrides) stand before and behind options.
    args = parser().parse_intermixed_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    if min(*args.crop, args.batch - 1, args.repeats, *args.shape) < 1:
        raise ConfigError("sizes and repeats are at least 1, --batch at least 2 (BatchNorm)")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SetupError(["--device cuda, but PyTorch sees no CUDA device: use --device cpu"])
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.what in UNTIMED:
        result, text = UNTIMED[args.what](args)
        result |= {"machine": describe_machine(args.device), "load": 0.0, "loaded": False}
    else:
        _refuse(idle_load(), args)
        meter = LoadMeter()
        result, text = TIMED[args.what](args)
        load = meter.others()
        result |= {
            "machine": describe_machine(args.device),
            "load": load,
            "loaded": load > args.max_load,
        }
    print(text(result))
    if args.json:
        write_json(Path(args.json), result)
    _refuse(result["load"], args)  # at the end, so that a long measurement can still be looked at


def _refuse(load: float, args: argparse.Namespace) -> None:
    if load > args.max_load and not args.anyway:
        raise SetupError(
            [
                f"other processes take {load:.0%} of the cores, more than --max-load "
                f"{args.max_load:.0%}: times would mean nothing. Stop them, or add --anyway to "
                "get a report that is marked as such"
            ]
        )


if __name__ == "__main__":
    sys.exit(main())
