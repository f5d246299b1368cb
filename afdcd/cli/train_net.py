"""Train, resume or evaluate a config, in whichever runtime there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from afdcd.cli.arguments.train_net import parser
from afdcd.cli.common import (
    overrides_of,
    report_errors,
    uses_detectron2,
)
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.utils.problems import INSTALL_DETECTRON2


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
