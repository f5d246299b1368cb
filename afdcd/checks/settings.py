"""Settings that can't work, whatever data and models are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from afdcd.checks.findings import Report
from afdcd.checks.preflight import occupied_problems, output_problems
from afdcd.engine.checkpoints import Checkpoints
from afdcd.engine.runtime import Runtime


def check_settings(cfg: Any, runtime: Runtime, report: Report) -> None:
    """The config's numbers, and where the run is to be written."""
    report.fix("config", *runtime.config_problems(cfg))
    solver = cfg.SOLVER
    for key, value in (
        ("SOLVER.BASE_LR", solver.BASE_LR),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
    ):
        if not value > 0:
            report.fix("config", f"{key} must be above 0; got {value}")
    if solver.BASE_LR > 1:
        report.fix("learning-rate", f"SOLVER.BASE_LR {solver.BASE_LR:g} is far above usual (0.02)")
    if min(cfg.MODEL.PIXEL_STD, default=0) <= 0 or len(cfg.MODEL.PIXEL_MEAN) != 3:
        report.fix(
            "normalization",
            f"MODEL.PIXEL_MEAN {list(cfg.MODEL.PIXEL_MEAN)} and PIXEL_STD "
            f"{list(cfg.MODEL.PIXEL_STD)} must be three numbers, PIXEL_STD above 0",
        )
    check_output(cfg, report)


def check_output(cfg: Any, report: Report) -> None:
    """``OUTPUT_DIR``: writable, free, and with room for checkpoints."""
    folder = Path(cfg.OUTPUT_DIR).absolute()
    # A dry run makes no folders: the nearest one that is there must be writable.
    there = next(path for path in (folder, *folder.parents) if path.exists())
    problems = output_problems(there) if there.is_dir() else [f"OUTPUT_DIR: {there} is a file"]
    report.fix("output", *problems)
    if problems:
        return
    if folder.is_dir():
        report.fix("output", *occupied_problems(Checkpoints(folder)))
    report.facts["free disk, GiB"] = shutil.disk_usage(there).free / 2**30
