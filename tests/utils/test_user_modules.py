"""Names of users' files, and what they define in other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdcd.utils.user_modules import file_module_name, import_user_module, module_file

MAPPER = '''
import os

class Doubling:
    """A mapper that says which process it was run in."""

    def __call__(self, record, rng=None):
        return {"value": 2 * record["value"], "process": os.getpid()}
'''
LOADER = """
import multiprocessing
import os
import sys
from pathlib import Path

from afdcd.data.stream import SampleStream
from afdcd.embedded.loader import evaluation_batches, training_batches
from afdcd.utils.user_modules import file_module_name, import_user_module

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    module = import_user_module(file_module_name(Path(sys.argv[2])))
    records = [{"value": value} for value in range(6)]
    batches = [
        *evaluation_batches(records, module.Doubling(), workers=2),
        *training_batches(
            SampleStream(records, module.Doubling(), 0), batch_size=3, first=0, last=2, workers=2
        ),
    ]
    samples = [sample for batch in batches for sample in batch]
    assert os.getpid() not in {sample["process"] for sample in samples}
    print(*(sample["value"] for sample in samples))
"""

paths = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
).map(lambda parts: Path("/", *parts[:-1], f"{parts[-1]}.py"))


@given(paths)
def test_a_name_spells_its_path(path: Path):
    name = file_module_name(path)
    assert module_file(name) == path
    assert name.isascii() and all(part.isidentifier() for part in name.split("."))


def test_a_name_read_by_hand():
    name = file_module_name(Path("/a b/my_net.v2.py"))
    assert name == "afdcd.utils.user_modules._2fa_20b_2fmy__net_2ev2"
    assert module_file("afdcd.utils.files") is None


def test_two_files_of_one_name_are_two_modules(tmp_path):
    modules = []
    for value in (1, 2):
        path = tmp_path / str(value) / "part.py"
        path.parent.mkdir()
        path.write_text(f"VALUE = {value}")
        modules.append(import_user_module(file_module_name(path)))
    assert [module.VALUE for module in modules] == [1, 2]
    # Run once: what is in the file by now makes no difference.
    path.write_text("VALUE = 3")
    assert import_user_module(file_module_name(path)) is modules[1]


def test_objects_are_unpickled_in_a_process_that_knows_nothing(tmp_path):
    path = tmp_path / "part.py"
    path.write_text(MAPPER)
    module = import_user_module(file_module_name(path))
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer)({'value': 4})['value'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(module.Doubling()),
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [b"8"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_mapper_of_a_file_in_loader_processes(tmp_path, method: str):
    (tmp_path / "part.py").write_text(MAPPER)
    (tmp_path / "script.py").write_text(LOADER)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), method, str(tmp_path / "part.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = [int(word) for word in done.stdout.split()]
    assert values[:6] == [0, 2, 4, 6, 8, 10]
    assert sorted(values[6:]) == [0, 2, 4, 6, 8, 10]
