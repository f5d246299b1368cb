"""Train, resume or evaluate a config, in whichever runtime there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from afdcd.cli.common import (
    add_config_flag,
    add_overrides,
    add_runtime_flag,
    overrides_of,
    report_errors,
    uses_detectron2,
)
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.utils.problems import INSTALL_DETECTRON2

EPILOG = """\
KEY VALUE pairs override the config file, e.g.
  tools/train_net.py --config-file configs/camvid_small/student.yaml SOLVER.MAX_ITER 1000
"""


def parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and --runtime."""
    p = argparse.ArgumentParser(
        prog="train_net.py",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, 1 (training failed), 2 (can't start), 130."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args), quiet=args.quiet)


def _main(args: argparse.Namespace) -> None:
    overrides = overrides_of(args)
    if uses_detectron2(args.runtime):
        _run_detectron2(args, overrides)
        return
    setup = EmbeddedRuntime.configure(args.config_file, overrides)
    problems = []
    if (args.num_gpus or 0) > 1 or args.num_machines > 1:
        problems.append(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: the embedded runtime "
            f"uses one device; several take Detectron2. {INSTALL_DETECTRON2}, or use --num-gpus 1"
        )
    run(
        setup.cfg,
        eval_only=args.eval_only,
        resume=args.resume,
        num_gpus=args.num_gpus,
        weights_named=setup.weights_named,
        problems=problems,
    )


def _run_detectron2(args: argparse.Namespace, overrides: list[str]) -> None:
    # Imported at use: without Detectron2 everything else here works.
    from afdcd.d2.run import launch_run

    launch_run(
        args.config_file,
        overrides,
        eval_only=args.eval_only,
        resume=args.resume,
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        quiet=args.quiet,
    )


if __name__ == "__main__":
    sys.exit(main())
