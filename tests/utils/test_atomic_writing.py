"""Files that are written whole or not at all, by any number of writers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from afdcd.utils.files import remove_unfinished, write_atomically


def test_writers_of_one_file_do_not_meet(tmp_path):
    path, gate = tmp_path / "file", threading.Barrier(8)

    def write(number: int) -> None:
        def parts(file):
            gate.wait()  # all are open before the first is moved
            file.write(bytes([number]) * 100_000)

        write_atomically(path, parts, keep=number % 2 == 0, flush=False)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_files_is_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_atomically(path, lambda file, content=content: file.write(content), keep=True)
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda file: file.write(b"third"))
    assert path.read_bytes() == b"third"


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(path, fail)
    assert Path(caught.value.filename) == path
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".file.123.abcd.unfinished").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())
