"""Flags that commands share."""

from __future__ import annotations

import argparse

from afdcd.utils.paths import config_flag


def config_file(text: str) -> str:
    """`config_flag` of a single file."""
    return str(config_flag(text))


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """``--config-file``."""
    parser.add_argument(
        "--config-file",
        required=True,
        type=config_file,
        metavar="FILE",
        help="YAML config; configs/... may be one of the package's own",
    )


def add_runtime_flag(parser: argparse.ArgumentParser) -> None:
    """``--runtime``."""
    parser.add_argument(
        "--runtime",
        choices=("auto", "detectron2", "embedded"),
        default="auto",
        help="auto: Detectron2 where it is installed",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``KEY VALUE ...`` at the end."""
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides")
