"""Settings and fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Without a GPU, Triton's kernels run in its interpreter. Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from helpers.tiny_runs import write_tiny_runs

# How long an example takes is a matter of what else the machine does.
settings.register_profile("afdcd", deadline=None)
settings.load_profile("afdcd")

# The networks of the tests are tiny: more threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture
def configs(tmp_path, monkeypatch) -> Path:
    """A folder with student.yaml, teacher.yaml and distilled.yaml that train in seconds."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return write_tiny_runs(tmp_path)
