"""Train, resume or evaluate a config, in whichever runtime there is."""

from __future__ import annotations

import argparse

from afdcd.cli.arguments.flags import add_config_flag, add_overrides, add_runtime_flag

EPILOG = """\
KEY VALUE pairs override the config file, e.g.
  tools/train_net.py --config-file configs/camvid_small/student.yaml SOLVER.MAX_ITER 1000
"""


def parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and --runtime."""
    p = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flag(p)
    p.add_argument(
        "--resume", action="store_true", help="go on from OUTPUT_DIR's last checkpoint, if any"
    )
    p.add_argument("--eval-only", action="store_true", help="evaluate the student and stop")
    p.add_argument(
        "--num-gpus", type=int, default=None, help="GPUs a machine; 0 for the CPU (default: auto)"
    )
    p.add_argument("--quiet", action="store_true", help="print warnings and errors alone")
    p.add_argument("--num-machines", type=int, default=1, help="number of machines")
    p.add_argument("--machine-rank", type=int, default=0, help="this machine's rank")
    p.add_argument("--dist-url", default="auto", help="where the processes meet")
    add_runtime_flag(p)
    add_overrides(p)
    return p
