"""Check what runs on a GPU, in minutes: whether values are right, and what a step costs."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from afdcd.benchmark.gpu.plan import Plan, small_setting
from afdcd.benchmark.gpu.rows import Row, rows_of, rows_text
from afdcd.benchmark.gpu.runs import Trial, data_in
from afdcd.benchmark.machine import describe_machine
from afdcd.benchmark.settings import Setting
from afdcd.cli.arguments.gpu_check import parser
from afdcd.cli.common import report_errors
from afdcd.config import ConfigError
from afdcd.utils.files import write_json
from afdcd.utils.problems import SetupError

# 16 positions at a stride of 8: a patch of 4 after pooling by 4.
LEAST_CROP = 121


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    rows: list[Row] = []
    code = report_errors(lambda: rows.extend(_main(args)))
    return code or int(any(row.passed is False for row in rows))


def _main(args: argparse.Namespace) -> list[Row]:
    if min(args.batch - 1, args.repeats, args.dims) < 1:
        raise ConfigError("--dims and --repeats are at least 1, --batch at least 2 (BatchNorm)")
    if min(args.crop) < LEAST_CROP:
        raise ConfigError(f"--crop: the pooled map holds no patch below {LEAST_CROP} pixels a side")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SetupError([_no_gpu()])
    distilled, teacher = args.configs / "afdcd.yaml", args.configs / "teacher.yaml"
    if missing := [str(path) for path in (distilled, teacher) if not path.is_file()]:
        raise SetupError([f"--configs: there is no {' and no '.join(missing)}"])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="afdcd_gpu_check_") as name, data_in(Path(name)):
        plan = Plan(
            device=args.device,
            trial=Trial(distilled.resolve(), teacher.resolve(), Path(name), args.device),
            setting=Setting((args.crop[0], args.crop[1]), args.batch, device=args.device),
            small=small_setting(args.device),
            dims=args.dims,
            repeats=args.repeats,
        )
        rows = check(plan)
    machine = describe_machine(args.device)
    print(_heading(machine))
    print(rows_text(rows))
    if args.json:
        seconds = time.perf_counter() - start
        content = {"machine": machine, "seconds": seconds, "rows": [asdict(row) for row in rows]}
        write_json(args.json, content)
    return rows


def check(plan: Plan) -> list[Row]:
    """Make all checks of a plan; says on stderr which one is being made."""
    rows: list[Row] = []
    for one in plan.checks():
        print(f"{one.name} ...", file=sys.stderr, flush=True)
        rows += rows_of(one, plan.device)
    return rows


def _heading(machine: dict[str, Any]) -> str:
    return f"{machine.get('gpu', machine['processor'])}, torch {machine['torch']}"


def _no_gpu() -> str:
    reason = (
        "sees no CUDA device: look at nvidia-smi, its driver and CUDA_VISIBLE_DEVICES"
        if torch.version.cuda
        else "was built without CUDA: install one that has it"
    )
    return f"no GPU to check: this PyTorch ({torch.__version__}) {reason}"


if __name__ == "__main__":
    sys.exit(main())
