"""Training samples a second on one core: decode, scale, crop, normalise.

Compares the plain way (decode all, resize all, crop) with the mapper, and with the mapper on files
that are kept decoded (DATALOADER.CACHE_DIR). Draws street-like images unless --data-set is given.
"""

from __future__ import annotations

import argparse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data-set", help="measure its files instead of drawn ones")
    p.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    p.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    p.add_argument("--files", type=int, default=8, help="distinct files (8)")
    p.add_argument("--samples", type=int, default=64, help="samples to time in each way (64)")
    p.add_argument("--format", choices=("png", "jpg"), default="png", help="of drawn images")
    p.add_argument("--json", action="store_true", help="print JSON")
    return p
