"""Training samples a second on one core: decode, scale, crop, normalise."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from afdcd.benchmark.loading import draw_files, measure
from afdcd.cli.arguments.benchmark_loading import parser
from afdcd.cli.common import report_errors
from afdcd.config import ConfigError
from afdcd.data import load_dataset
from afdcd.data.cityscapes import ID_MAP
from afdcd.data.listing import spread


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    if min(*args.size, *args.crop, args.files, args.samples) < 1:
        raise ConfigError("sizes and counts are above 0")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.data_set:
            try:
                dataset = load_dataset(args.data_set)
            except KeyError as error:
                raise ConfigError(error.args[0]) from error
            records, label_map = spread(dataset.records, args.files), dataset.label_map
        else:
            records = draw_files(Path(folder), args.files, tuple(args.size), args.format)
            label_map = ID_MAP
        results = measure(records, label_map, tuple(args.crop), args.samples, Path(folder))
    if args.json:
        print(json.dumps(results, indent=2))
        return
    plain = results["plain"]
    rows = [(way, f"{rate:.1f}", f"{rate / plain:.2f}") for way, rate in results.items()]
    print(
        tabulate(rows, headers=["way", "images/s per core", "times plain"], disable_numparse=True)
    )


if __name__ == "__main__":
    sys.exit(main())
