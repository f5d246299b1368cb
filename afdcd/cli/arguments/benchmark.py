"""Time and memory of a training step and its parts, beside the plain published formulation.

  step      the whole step by parts, in several precisions, with peak memory and arithmetic
  contrast  the contrast alone
  scaling   the step over crops, batches, channels or processes
  errors    what low precision costs on the weights of a config

Refuses to measure where other processes take more than --max-load of the cores; where they did so
in the meantime, the result is marked, and the exit code is 2. --anyway takes both. Exit code 0:
measured; 2: can't measure.
"""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import config_file

# Share of the cores that other processes may take while times are measured.
MOST_LOAD = 0.1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "what",
        nargs="?",
        default="step",
        choices=("step", "contrast", "scaling", "errors"),
    )
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--threads", type=int, help="of PyTorch (its own choice)")
    p.add_argument("--crop", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    p.add_argument("--batch", type=int, default=2, help="images per step (2)")
    p.add_argument("--teacher", type=int, default=101, help="depth of its ResNet (101)")
    p.add_argument("--student", type=int, default=18, help="depth of its ResNet (18)")
    p.add_argument("--width", type=float, default=1.0, help="factor of all channels (1)")
    p.add_argument("--pool", type=int, default=4, help="of the contrast (4)")
    p.add_argument("--dims", type=int, default=256, help="of compact and recorded targets (256)")
    p.add_argument("--repeats", type=int, default=5, help="rounds that count (5)")
    p.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="variants beside the plain step and the student alone",
    )
    p.add_argument("--no-memory", action="store_true", help="times only")
    p.add_argument("--no-loader", action="store_true", help="leave out the loading of samples")
    p.add_argument(
        "--shape",
        type=int,
        nargs=4,
        default=(2, 2048, 64, 128),
        metavar=("N", "C", "H", "W"),
        help="contrast: of the maps (2 2048 64 128)",
    )
    p.add_argument(
        "--over",
        choices=("crop", "batch", "channels", "processes"),
        default="crop",
        help="scaling: over what",
    )
    p.add_argument("--values", nargs="+", help="scaling: e.g. 256x512 512x1024, or 2 4 8")
    p.add_argument("--config-file", type=config_file, metavar="FILE", help="errors: to distil by")
    p.add_argument("--weights", metavar="FILE", help="errors: a checkpoint of its run")
    p.add_argument("--max-load", type=float, default=MOST_LOAD, help=f"({MOST_LOAD:g})")
    p.add_argument("--anyway", action="store_true", help="report on a loaded machine, marked so")
    p.add_argument("--json", metavar="FILE", help="write the result as JSON")
    p.add_argument("--plot", metavar="FILE", help="step: draw the times (PNG)")
    p.add_argument("opts", nargs="*", metavar="KEY VALUE", help="errors: overrides")
    return p
