"""A sound set-up, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.doctor_case import Case, write_sound


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_sound(folder)
    return folder


@pytest.fixture
def case(sound, tmp_path) -> Case:
    folder = tmp_path / "setup"
    shutil.copytree(sound, folder)
    path = folder / "distilled.yaml"
    path.write_text(path.read_text().replace(str(sound), str(folder)))
    return Case(folder)
