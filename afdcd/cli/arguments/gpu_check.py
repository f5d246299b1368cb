"""Check what runs on a GPU, in minutes: whether values are right, and what a step costs.

Kernels, losses and a step against float64; short trainings in float32, bfloat16 and float16,
stopped and resumed, recorded and read; a step with recorded and with live compact targets in times
the student's own, and its peak memory; with two GPUs and Detectron2, two processes. Prints each
figure with its limit, and what failed.

Exit code 0: all passed; 1: something failed; 2: there is no GPU, or the checks can't start.
"""

from __future__ import annotations

import argparse

from afdcd.utils.paths import config_flag, path_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--configs",
        type=config_flag,
        default="configs/quickstart",
        help="folder of teacher.yaml and afdcd.yaml (configs/quickstart)",
    )
    p.add_argument(
        "--crop",
        type=int,
        nargs=2,
        default=(512, 1024),
        metavar=("H", "W"),
        help="of the timed step (512 1024)",
    )
    p.add_argument(
        "--batch",
        type=int,
        default=8,
        help="images of the timed step, or fewer where memory is short (8)",
    )
    p.add_argument("--dims", type=int, default=256, help="of its compact targets (256)")
    p.add_argument("--repeats", type=int, default=10, help="timed rounds that count (10)")
    p.add_argument("--json", type=path_flag, metavar="FILE", help="write the rows as JSON")
    # To test the checks themselves; Triton's kernel then needs its interpreter.
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help=argparse.SUPPRESS)
    return p
