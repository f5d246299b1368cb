"""Describe a data set of your own in a YAML file that configs can name, and check its files.

With options, the description is written (paths are relative to its folder, or to --root) and then
checked; alone, an existing one is checked.
"""

from __future__ import annotations

import argparse

from afdcd.utils.paths import path_flag

EPILOG = """\
examples:
  register_dataset.py tiles.yaml --images tiles --labels masks --label-suffix _mask.png \\
      --encoding rgb --class field=#00c800 --class water=#0000c8 --ignore '#000000' \\
      --split train=0.8 --split val=0.2
  register_dataset.py slices.yaml --csv slices.csv --class background --class organ \\
      --map 0=background --map 1000=organ --ignore 65535 --split train --split val
  register_dataset.py tiles.yaml            # check it again

In a config: DATASETS: {TRAIN: ["tiles.yaml:train"], TEST: ["tiles.yaml:val"]}, relative to the
config's folder. A description in $DETECTRON2_DATASETS/descriptions has names, e.g. tiles_train.
"""


# Files of a split that are opened without --full.
SAMPLE = 200


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("file", type=path_flag, help="YAML file to write or check")
    p.add_argument("--root", help="folder of the files, relative to the YAML file's")
    p.add_argument("--images", help="folder of the images")
    p.add_argument("--labels", help="folder of the label maps")
    p.add_argument("--image-suffix", help="end of the images' names, e.g. _leftImg8bit.png")
    p.add_argument("--label-suffix", help="what stands instead in the label maps' (.png)")
    p.add_argument("--csv", help="CSV file with the columns image, label and optionally split")
    p.add_argument("--panoptic", help="COCO panoptic JSON file")
    p.add_argument(
        "--encoding", choices=("index", "rgb", "panoptic"), help="of the label maps (index)"
    )
    p.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME[=#RRGGBB]",
        help="a class, in label order; without any, the values of the label maps become classes",
    )
    p.add_argument("--map", action="append", default=[], metavar="STORED=CLASS", help="a value")
    p.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="STORED",
        help="a value that doesn't count (255 where the labels are an index and it isn't mapped), "
        "or none for no value",
    )
    p.add_argument("--window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of the images")
    p.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME[=SHARE|LIST]",
        help="a split: all files (or a CSV file's rows), a share of them, or those of a text file",
    )
    p.add_argument("--force", action="store_true", help="overwrite the YAML file")
    p.add_argument("--full", action="store_true", help=f"open all files, not {SAMPLE} a split")
    return p
