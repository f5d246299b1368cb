"""The notebook runs from the first cell to the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/first_steps.ipynb"


@pytest.mark.slow
def test_the_notebook(capsys):
    matplotlib.use("Agg")
    threads = torch.get_num_threads()
    known: dict[str, Any] = {"__name__": "notebook"}
    try:
        for cell in json.loads(NOTEBOOK.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"], "kept without outputs, which change with every run"
                exec(compile("".join(cell["source"]), cell["id"], "exec"), known)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    scores = [float(line.split()[-2]) for line in said.splitlines() if line.endswith("mIoU")]
    teacher, alone, distilled = scores
    assert teacher > alone > 5 and distilled > 5
    assert all(axes.images for axes in known["figure"].axes)
