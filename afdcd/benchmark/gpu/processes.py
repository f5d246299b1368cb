"""Two processes with a GPU each, and a BatchNorm that is synchronised between them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from afdcd.benchmark.gpu.rows import Check, Figure, Skipped
from afdcd.benchmark.gpu.runs import TEACHER, Trial

# Seconds until a run that hangs is ended.
LONGEST = 150


def two_processes_check(trial: Trial) -> Check:
    """Train with Detectron2 on two GPUs, as ``tools/train_net.py --num-gpus 2`` does."""

    def measure() -> dict[str, Figure]:
        _check_possible()
        flags = ["--runtime", "detectron2", "--num-gpus", "2"]
        words = ["OUTPUT_DIR", str(trial.folder / "two_processes"), "MODEL.DEVICE", "cuda"]
        words += ["MODEL.SYNC_BN", "True", "SOLVER.MAX_ITER", str(trial.iterations)]
        words += [f"{TEACHER}.WEIGHTS", str(trial.teacher_weights), *trial.overrides]
        command = [sys.executable, "-m", "afdcd.cli.train_net", *flags]
        code, errors = _run([*command, "--config-file", str(trial.distilled), *words])
        if code:
            raise RuntimeError(f"the run ended with exit code {code}:\n{errors}")
        # A loss that isn't finite ends the run with an error.
        return {"exit code": Figure(0.0, 0.0, f"{trial.iterations} iterations")}

    return Check("two processes, SyncBN", measure)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command; one that takes too long is ended with its children.

    Raises:
        RuntimeError: it took longer than `LONGEST`.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],  # where the package is, installed or not
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=LONGEST)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"the run didn't end within {LONGEST} s") from error
            raise
    return process.returncode, errors


def _check_possible() -> None:
    count = torch.cuda.device_count()
    if count < 2:
        raise Skipped("one GPU" if count else "no GPU")
    if importlib.util.find_spec("detectron2") is None:
        raise Skipped("Detectron2 isn't installed")
