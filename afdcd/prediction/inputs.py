"""Which images and videos to predict, and in which batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from afdcd.data import DataError
from afdcd.data.images import read_image
from afdcd.data.listing import IMAGE_SUFFIXES
from afdcd.utils.files import files_below
from afdcd.utils.problems import raise_problems

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_inputs(paths: Sequence[Path], output: Path) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Images, each with its name below the output folder, and videos.

    What lies below the output folder is no input: it is of an earlier run.

    Raises:
        SetupError: a path is missing or of an unknown kind, or two images would have one name.
    """
    images: list[tuple[Path, str]] = []
    videos, problems = [], []
    output = output.resolve()
    for path in paths:
        suffix = path.suffix.lower()
        if path.is_dir() and path.resolve() == output:
            problems.append(f"--output {path} is also an --input: choose another folder")
        elif path.is_dir():
            try:
                below = files_below(path)
            except OSError as error:
                problems.append(f"--input: {error.strerror}")
                continue
            found = [
                p
                for p in below
                if p.suffix.lower() in IMAGE_SUFFIXES
                and not p.name.startswith(".")
                and not p.resolve().is_relative_to(output)
            ]
            if not found:
                problems.append(f"--input: no images in {path}")
            images += [(p, p.relative_to(path).with_suffix("").as_posix()) for p in found]
        elif not path.is_file():
            problems.append(f"--input: nothing at {path}")
        elif suffix in VIDEO_SUFFIXES:
            videos.append(path)
        elif suffix in IMAGE_SUFFIXES:
            images.append((path, path.stem))
        else:
            problems.append(
                f"--input: {path} is no image ({', '.join(IMAGE_SUFFIXES)}) or video "
                f"({', '.join(VIDEO_SUFFIXES)})"
            )
    counts = Counter(name for _, name in images)
    counts.update(path.stem for path in videos if len({p.stem for p in videos}) < len(videos))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        problems.append(f"--input: several files would be written as {', '.join(twice[:3])}")
    if any(path.resolve() == output / f"{name}.png" for path, name in images):
        problems.append(f"--output {output} holds --input images: choose another folder")
    raise_problems(problems)
    return images, videos


def batches_of(
    images: Iterable[tuple[Path, str]],
    size: int,
    window: tuple[float, float] | None,
    unusable: list[str],
) -> Iterator[list[tuple[Path, str, np.ndarray]]]:
    """Images in their order, at most so many at once, of one size.

    Those that can't be read are left out and named in ``unusable``.
    """
    batch: list[tuple[Path, str, np.ndarray]] = []
    for path, name in images:
        try:
            image = read_image(path, window)
        except DataError as error:
            unusable.append(str(error))
            continue
        if batch and (len(batch) == size or batch[0][2].shape != image.shape):
            yield batch
            batch = []
        batch.append((path, name, image))
    if batch:
        yield batch
