"""Train, resume or evaluate a config, in whichever runtime there is."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from afdcd.config import ConfigError, embedded_config, merge_file, merge_overrides
from afdcd.data import DataError
from afdcd.embedded import NonFiniteLoss, run
from afdcd.interrupt import Interrupted
from afdcd.preflight import INSTALL_DETECTRON2, SetupError

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
    p.add_argument("--config-file", required=True, metavar="FILE", help="YAML config")
    p.add_argument(
        "--resume", action="store_true", help="go on from OUTPUT_DIR's last checkpoint, if any"
    )
    p.add_argument("--eval-only", action="store_true", help="evaluate the student and stop")
    p.add_argument(
        "--num-gpus", type=int, default=None, help="GPUs a machine; 0 for the CPU (default: auto)"
    )
    p.add_argument("--num-machines", type=int, default=1, help="number of machines")
    p.add_argument("--machine-rank", type=int, default=0, help="this machine's rank")
    p.add_argument("--dist-url", default="auto", help="where the processes meet")
    p.add_argument(
        "--runtime",
        choices=("auto", "detectron2", "embedded"),
        default="auto",
        help="auto: Detectron2 where it is installed",
    )
    p.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides")
    return p


def configure(config_file: str, overrides: Sequence[str]) -> Any:
    """The embedded runtime's config of a file and overrides.

    Raises:
        ConfigError: see `merge_file` and `merge_overrides`.
    """
    cfg = embedded_config()
    merge_file(cfg, config_file)
    merge_overrides(cfg, overrides)
    return cfg


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, 1 (training failed), 2 (can't start), 130."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def report_errors(command: Callable[[], None]) -> int:
    """Run a command with logging set up; turn what users can mend into a line and an exit code."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    try:
        with logging_redirect_tqdm():
            command()
    except (ConfigError, SetupError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NonFiniteLoss, OSError) as error:  # OSError: a full disk, say
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _main(args: argparse.Namespace) -> None:
    overrides = [word for word in args.opts if word != "--"]
    if args.runtime == "detectron2" or (args.runtime == "auto" and has_detectron2()):
        _run_detectron2(args, overrides)
        return
    cfg = configure(args.config_file, overrides)
    problems = []
    if (args.num_gpus or 0) > 1 or args.num_machines > 1:
        problems.append(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: the embedded runtime "
            f"uses one device; several take Detectron2. {INSTALL_DETECTRON2}, or use --num-gpus 1"
        )
    run(
        cfg,
        eval_only=args.eval_only,
        resume=args.resume,
        num_gpus=args.num_gpus,
        problems=problems,
    )


def has_detectron2() -> bool:
    """Whether Detectron2 can be found."""
    return importlib.util.find_spec("detectron2") is not None


def _run_detectron2(args: argparse.Namespace, overrides: list[str]) -> None:
    if not has_detectron2():
        raise SetupError([f"--runtime detectron2: it is not installed. {INSTALL_DETECTRON2}"])
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
    )


if __name__ == "__main__":
    sys.exit(main())
