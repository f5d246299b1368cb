"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch

_UNFINISHED = ".unfinished"


def write_atomically(
    path: Path,
    write: Callable[[IO[bytes]], Any],
    *,
    keep: bool = False,
    flush: bool = True,
) -> None:
    """Write a file next to its destination, flush it to the disk, and move it into place.

    A crash at any moment leaves the old file, or the new one, and never a part. Any number of
    processes may write the same file: one of theirs is there in the end. Missing folders are made.

    Args:
        path: of the file.
        write: given the open file.
        keep: whether a file that is there, or that another process writes first, stays.
        flush: whether to wait for the disk. Without it, a power cut may leave an empty file.
    """
    # Every writer has a name of its own, or one could move another's half into place.
    unique = f"{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{unique}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        _move(temporary, path, keep=keep)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk's error names no file
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if flush and hasattr(os, "O_DIRECTORY"):  # so that the new name survives a power cut too
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _move(temporary: Path, path: Path, *, keep: bool) -> None:
    if not keep:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.replace(path)
            return
    temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """`write_atomically` of UTF-8 text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`write_atomically` of `json_text`."""
    write_text(path, json_text(content))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels (colours in BGR), whole or not at all.

    Raises:
        OSError: they can't be encoded or written.
    """
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"can't encode {path}")
    write_atomically(path, lambda file: file.write(data.tobytes()))


def json_text(content: Mapping[str, Any]) -> str:
    """JSON for people and programs. Numbers that aren't finite, which JSON lacks, become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def json_line(content: Mapping[str, Any]) -> str:
    """`json_text` in one line, with its end."""
    return json.dumps(_finite(content), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """`write_atomically` of a dict that ``torch.load(weights_only=True)`` reads.

    Raises:
        OSError: it can't be written, for example because the disk is full.
    """
    try:
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        # PyTorch hides the system's error behind one of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(
            f"{path} can't be written: {cause.strerror or cause}. Files written before it are "
            "whole: make room, then go on with --resume"
        ) from error


def files_below(folder: Path) -> list[Path]:
    """All that is no folder in a folder and below it, in order, links to folders followed.

    Each folder is looked into once: by its own path where it has one below ``folder``, else by that
    of the first link to it. Links to a folder that they lie in lead in a circle, and are left out.
    Links that lead nowhere are among the files.

    Raises:
        OSError: a folder can't be looked into, or a name in it isn't UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise OSError(error.errno, f"{error.filename} can't be looked into: {error.strerror}")

    seen: set[str] = set()
    found: list[Path] = []
    links = [folder]
    while links:
        link = links.pop(0)
        if (real := os.path.realpath(link)) in seen or _leads_up(link, real):
            continue
        for top, folders, files in os.walk(link, onerror=refuse):
            seen.add(os.path.realpath(top))
            for name in [*folders, *files]:
                if not _is_text(name):
                    text = f"{top} holds {os.fsencode(name)!r}, whose name isn't UTF-8: rename it"
                    raise OSError(errno.EILSEQ, text)
            found += [Path(top, name) for name in files]
            folders[:] = sorted(n for n in folders if os.path.realpath(Path(top, n)) not in seen)
            # os.walk lists links to folders, but doesn't follow them.
            links += [Path(top, name) for name in folders if Path(top, name).is_symlink()]
    return sorted(found)


def _is_text(name: str) -> bool:
    """Whether a name can be written to files and terminals."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_up(link: Path, real: str) -> bool:
    """Whether a link's target holds the link, and with it all that was asked for."""
    return link.is_symlink() and Path(os.path.realpath(link.parent)).is_relative_to(real)


def remove_unfinished(folder: Path) -> None:
    """Delete what interrupted writes have left behind."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def drop_later_lines(path: Path, resume_at: int) -> None:
    """Remove from ``metrics.json`` the lines that a crash may have left behind, whole or not.

    Args:
        path: of the file, a JSON object with ``iteration`` per line; created if missing.
        resume_at: the first iteration to come; 0 empties the file.
    """
    kept = []
    if path.is_file() and resume_at > 0:
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["iteration"] < resume_at:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # half a line
    write_text(path, "".join(f"{line}\n" for line in kept))
