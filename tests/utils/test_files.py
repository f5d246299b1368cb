"""Finding files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdcd.utils.files import files_below


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def test_links_to_folders_are_followed(tmp_path):
    folder, other = tmp_path / "images", tmp_path / "disk2"
    for path in (folder / "a/1", other / "b/2", other / "3"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "b").symlink_to(other / "b")
    (folder / "a/c").symlink_to(other)
    (folder / "lost").symlink_to(tmp_path / "nowhere")
    assert names(folder) == ["a/1", "a/c/3", "b/2", "lost"]


@pytest.mark.parametrize("target", [".", "..", "../..", "a"])
def test_circles_end_and_add_nothing(tmp_path, target):
    folder = tmp_path / "data/images"
    (folder / "a/b").mkdir(parents=True)
    for path in (folder / "a/1", folder / "a/b/2", tmp_path / "data/labels.png"):
        path.touch()
    (folder / "a/loop").symlink_to((folder / target).resolve())
    (folder / "a/b/loop").symlink_to((folder / "a").resolve())
    assert names(folder) == ["a/1", "a/b/2"]


def test_a_folder_with_two_names_is_looked_into_once(tmp_path):
    """By its own name, even where a link to it comes first."""
    (tmp_path / "z").mkdir()
    (tmp_path / "z/1").touch()
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert names(tmp_path) == ["z/1"]


@given(
    links=st.lists(
        st.tuples(*[st.sampled_from(["", "a", "b", "a/c", "b/d"])] * 2), max_size=6, unique=True
    )
)
def test_any_links_among_folders(tmp_path_factory, links):
    """All files once, by their own names."""
    root = tmp_path_factory.mktemp("links")
    for name in ("a/c/1", "a/2", "b/d/3", "4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for number, (place, target) in enumerate(links):
        (root / place / f"link{number}").symlink_to(root / target)
    assert names(root) == ["4", "a/2", "a/c/1", "b/d/3"]


def test_names_that_are_no_text_are_refused(tmp_path):
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff\xfe.png", os.O_CREAT))
    with pytest.raises(OSError, match=r"xff.*isn't UTF-8: rename it"):
        files_below(tmp_path)
