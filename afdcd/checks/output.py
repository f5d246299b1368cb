"""``OUTPUT_DIR``: whether a run can be written to it, or go on in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afdcd.config import differences, merge_file
from afdcd.engine.checkpoints import Checkpoints
from afdcd.utils.findings import Report
from afdcd.utils.folders import folder_problems, nearest_there


def occupied_problems(checkpoints: Checkpoints) -> list[str]:
    """Whether a new run would overwrite another one."""
    last = checkpoints.last()
    if last is not None:
        return [
            f"OUTPUT_DIR {checkpoints.folder} already holds a run ({last.name}): add --resume to "
            "go on with it, or choose another OUTPUT_DIR"
        ]
    return lost_run_problems(checkpoints)


def lost_run_problems(checkpoints: Checkpoints) -> list[str]:
    """Whether weights of a run are there that can't be resumed from, and would be overwritten."""
    results = checkpoints.results()
    if not results or checkpoints.last() is not None:
        return []
    names = ", ".join(path.name for path in results)
    return [
        f"OUTPUT_DIR {checkpoints.folder} holds {names} of an earlier run, but no checkpoint to "
        "resume from: move them away, or choose another OUTPUT_DIR"
    ]


def check_output(folder: Path, report: Report) -> None:
    """Whether a new run can be written to it, and the room on its disk, for the doctor."""
    problems = folder_problems(folder) or occupied_problems(Checkpoints(folder))
    report.fix("output", *problems)
    report.facts["free disk, GiB"] = shutil.disk_usage(nearest_there(folder)).free / 2**30


def resume_problems(state: Mapping[str, Any], max_iter: int) -> list[str]:
    """Whether a checkpoint's content is beyond the end of the run."""
    done = state["iteration"] + 1
    if done <= max_iter:
        return []
    return [f"the checkpoint is at iteration {done}, beyond SOLVER.MAX_ITER {max_iter}"]


def changed_settings(cfg: Any, defaults: Any, copy: Path) -> str:
    """What differs from the config that a run was started with, in words; empty for nothing.

    Args:
        cfg: the config now.
        defaults: a new config of the same runtime; changed.
        copy: the config that the run wrote when it started.
    """
    if not copy.is_file():
        return ""
    try:
        merge_file(defaults, copy)
    except ValueError as error:
        return f"can't compare with the config the run was started with: {error}"
    # A seed that was drawn stays.
    aside = ("OUTPUT_DIR:", "SEED:") if cfg.SEED < 0 else ("OUTPUT_DIR:",)
    changed = [line for line in differences(defaults, cfg) if not line.startswith(aside)]
    if not changed:
        return ""
    lines = "\n  ".join(changed)
    return f"The run was started with other settings, and is not the same run any more:\n  {lines}"
