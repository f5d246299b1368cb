"""Tables of results for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate


def comparison_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per model.

    Args:
        results: by model: ``miou`` and ``boundary_iou`` (percent), ``params``, ``macs`` (of one
            image), ``iterations``, ``seconds_per_step`` and ``seconds`` of training.
    """
    rows = [
        {
            "model": name,
            "mIoU": f"{r['miou']:.2f}",
            "boundary IoU": f"{r['boundary_iou']:.2f}",
            "parameters": f"{r['params'] / 1e6:.2f} M",
            "multiply-adds": f"{r['macs'] / 1e6:.0f} M",
            "iterations": r["iterations"],
            "s/step": f"{r['seconds_per_step']:.3f}",
            "training": f"{r['seconds']:.0f} s",
        }
        for name, r in results.items()
    ]
    return tabulate(
        rows, headers="keys", disable_numparse=True, colalign=("left",) + ("right",) * 7
    )
