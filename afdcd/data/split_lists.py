"""Text files that name the images of a split."""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from afdcd.data.labels import DataError
from afdcd.data.pairs import Pair

_SEPARATORS = re.compile(r"[\s,;]+")


def listed_pairs(
    path: Path, pairs: list[Pair], root: Path, folders: tuple[str, str], what: str
) -> list[Pair]:
    """The pairs that a list names, each once, in its order.

    A line names an image by its path below the folder of images or below the root, with or without
    its suffix; its label map may follow it, as in published lists.

    Args:
        path: of the list.
        pairs: to choose from.
        root: of the description.
        folders: of images and of label maps, relative to the root.
        what: title for errors.

    Raises:
        DataError: the list is missing or no text, or a line names no image, or an image with
            another label map.
    """
    if not path.is_file():
        raise DataError(f"{what}: no list at {path.absolute()}")
    images = _by_name(((pair.image, pair) for pair in pairs), root, folders[0])
    # As before all others: the keys, of which an image's suffix may be only a part.
    images |= {pair.key + pair.image.suffix: pair for pair in pairs}
    images |= {pair.key: pair for pair in pairs}
    labels = _by_name(((pair.label, pair) for pair in pairs), root, folders[1])
    chosen: dict[Path, Pair] = {}
    unknown = []
    lines = [(n, text.strip()) for n, text in enumerate(read_text(path).splitlines(), 1)]
    lines = [(number, text) for number, text in lines if text]
    for number, text in lines:
        pair = _named(images, text) or _first_column(images, labels, text, f"{path}, line {number}")
        if pair is None:
            unknown.append(text)
        else:
            chosen[pair.image] = pair
    if unknown:
        raise DataError(
            f"{what}: {len(unknown)} of {len(lines)} names in {path} are no images: "
            f"{', '.join(unknown[:3])}; there are {', '.join(pair.key for pair in pairs[:3])}, ... "
            f"(a list names images relative to the folder of images, or to {root})"
        )
    return list(chosen.values())


def _by_name(files: Iterable[tuple[Path, Pair]], root: Path, folder: str) -> dict[str, Pair]:
    """Pairs by their file's path: whole, below the root, and below a folder of it.

    Each with and without the suffix.
    """
    bases = [posixpath.normpath(base.absolute().as_posix()) for base in (root, root / folder)]
    names: dict[str, Pair] = {}
    below_folder: dict[str, Pair] = {}
    for path, pair in files:
        whole = posixpath.normpath(path.absolute().as_posix())
        below_root, below = (_relative(whole, base) for base in bases)
        for name in (whole, below_root):
            names |= {name: pair, name.removesuffix(path.suffix): pair}
        below_folder |= {below: pair, below.removesuffix(path.suffix): pair}
    return names | below_folder


def _relative(path: str, base: str) -> str:
    """``posixpath.relpath`` of plain paths, fast where one lies below the other."""
    below = path.removeprefix(f"{base}/")
    return below if below != path else posixpath.relpath(path, base)


def _named(pairs: Mapping[str, Pair], name: str) -> Pair | None:
    return pairs.get(_plain(slashes(name))) or pairs.get(_plain(slashes(name)).lstrip("/"))


def _first_column(
    images: Mapping[str, Pair], labels: Mapping[str, Pair], text: str, where: str
) -> Pair | None:
    """The image of a line that names an image and its label map; None if it names no image.

    Raises:
        DataError: what follows the image isn't its label map.
    """
    other = ""
    for gap in _SEPARATORS.finditer(text):
        first, rest = text[: gap.start()], text[gap.end() :]
        pair = _named(images, first)
        if pair is None:
            continue
        if _named(labels, rest) is pair:
            return pair
        other = other or (
            f"{where}: after the image {first!r} stands {rest!r}, which isn't its label map "
            f"({pair.label}): a line holds an image, and at most its label map"
        )
    if other:
        raise DataError(other)
    return None


def slashes(name: str) -> str:
    """A path as it is written here, from one that may be of Windows."""
    return name.strip().replace("\\", "/")


def _plain(name: str) -> str:
    """A path without ``./``, ``//`` and ``..`` inside."""
    return posixpath.normpath(name) if name else ""


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        DataError: it can't be read, or is no text.
    """
    try:
        content = path.read_bytes()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in UTF-8 (at byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
