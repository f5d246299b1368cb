"""Views on disk: whole or missing, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from afdcd.data.view_store import ViewStore
from afdcd.data.views import ViewPlan, spread_views
from afdcd.utils.files import write_atomically

TENSORS = {"map": torch.arange(24).reshape(2, 3, 4).to(torch.int8), "scale": torch.rand(2)}


def same(found: dict[str, torch.Tensor] | None) -> bool:
    return found is not None and all(torch.equal(found[n], v) for n, v in TENSORS.items())


def test_what_is_written_is_read(tmp_path):
    store = ViewStore(tmp_path / "views")
    assert store.read(3, 1) is None
    assert list(store.there()) == []
    store.write(3, 1, TENSORS)
    store.write(250, 0, TENSORS)
    assert same(store.read(3, 1))
    assert store.read(3, 0) is None
    assert sorted(store.there()) == [(3, 1), (250, 0)]


@pytest.mark.parametrize("harm", ["shorter", "empty", "zeros", "one bit", "no safetensors"])
def test_a_damaged_file_counts_as_missing(tmp_path, harm: str):
    store = ViewStore(tmp_path)
    store.write(0, 0, TENSORS)
    path = store.path(0, 0)
    content = bytearray(path.read_bytes())
    if harm == "shorter":
        content = content[:-5]
    elif harm == "empty":
        content = bytearray()
    elif harm == "zeros":
        content[-20:] = bytes(20)
    elif harm == "one bit":
        content[-1] ^= 1
    else:
        content = bytearray(b"something else")
    path.write_bytes(content)
    assert store.read(0, 0) is None
    assert list(store.there()) == []  # so that it is recorded anew
    store.write(0, 0, TENSORS)
    assert same(store.read(0, 0))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    store = ViewStore(tmp_path)
    store.write(0, 0, TENSORS)

    def fill(path: Path, write: Any, **settings: Any) -> None:
        def half(file: IO[bytes]) -> None:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")

        write_atomically(path, half, **settings)

    monkeypatch.setattr("afdcd.data.view_store.write_atomically", fill)
    with pytest.raises(OSError, match="No space"):
        store.write(0, 0, {"map": torch.zeros(9)})
    assert same(store.read(0, 0))  # nothing that was there is lost
    with pytest.raises(OSError, match="No space"):
        store.write(0, 1, TENSORS)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [store.path(0, 0).name]


WRITER = """
import sys, torch
from pathlib import Path
from afdcd.data.view_store import ViewStore
store = ViewStore(Path(sys.argv[1]))
tensors = {"map": torch.arange(24).reshape(2, 3, 4).to(torch.int8), "scale": torch.ones(2)}
number = 0
while True:
    store.write(number % 50, 0, tensors)
    number += 1
"""


def test_killed_writers_leave_whole_files(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env=environment)
        for _ in range(2)
    ]
    store = ViewStore(tmp_path)
    limit = time.monotonic() + 60
    while len(list(store.there())) < 50 and time.monotonic() < limit:
        time.sleep(0.05)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    found = [store.read(image, view) for image, view in store.there()]
    assert len(found) == 50
    assert all(item is not None and torch.equal(item["map"], TENSORS["map"]) for item in found)


def test_views_are_functions_of_seed_image_and_view():
    plan = ViewPlan(seed=4, count=3)
    draws = {plan.rng(*key).random() for key in ((0, 0), (0, 1), (1, 0))}
    assert len(draws) == 3
    assert plan.rng(5, 2).random() == ViewPlan(seed=4, count=64).rng(5, 2).random()
    assert plan.rng(5, 2).random() != ViewPlan(seed=5, count=3).rng(5, 2).random()
    chosen = [plan.choice(7, number) for number in range(300)]
    assert chosen == [plan.choice(7, number) for number in range(300)]
    assert chosen != [plan.choice(8, number) for number in range(300)]
    assert all(60 < chosen.count(view) < 140 for view in range(3))


def test_spread_views():
    assert list(spread_views(8, 4)) == [(0, 0), (2, 0), (4, 0), (6, 0)]
    assert list(spread_views(2, 5)) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
