"""Predict images, folders of images, or videos: colour overlays and label maps.

Takes the config of a teacher, a student, or a distilled student (whose student is used).
"""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import add_config_flag, add_overrides, add_runtime_flag
from afdcd.utils.paths import expanded, path_flag


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    add_config_flag(p)
    p.add_argument(
        "--input",
        nargs="+",
        required=True,
        type=path_flag,
        help="images, videos, folders (with all below)",
    )
    p.add_argument("--output", required=True, type=path_flag, help="folder to write to")
    p.add_argument(
        "--weights",
        type=expanded,
        help="checkpoint (the run's own result in OUTPUT_DIR, or MODEL.WEIGHTS)",
    )
    p.add_argument("--batch-size", type=int, default=1, help="images of one size at once (1)")
    p.add_argument("--amp", action="store_true", help="mixed precision, of SOLVER.AMP.DTYPE")
    p.add_argument("--alpha", type=float, default=0.5, help="opacity of the colours (0.5)")
    p.add_argument("--no-overlay", action="store_true", help="label maps only")
    p.add_argument("--no-labels", action="store_true", help="overlays only")
    p.add_argument(
        "--official-values",
        action="store_true",
        help="write label maps with the data set owners' values, as test servers expect "
        "(Cityscapes: label ids), named as the image",
    )
    p.add_argument("--data-set", help="whose colours and values to use (DATASETS.TEST's first)")
    p.add_argument("--num-gpus", type=int, default=None, help="0 for the CPU")
    add_runtime_flag(p)
    add_overrides(p)
    return p
