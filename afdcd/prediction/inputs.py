"""Which images and videos to predict, in which batches, and which files come of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from afdcd.data import DataError
from afdcd.data.images import read_image
from afdcd.data.listing import IMAGE_SUFFIXES
from afdcd.prediction.video import frame_name, overlay_name
from afdcd.tasks import PredictionStyle, Task
from afdcd.utils.files import files_below
from afdcd.utils.problems import first_few, raise_problems

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


class Input(NamedTuple):
    """An image or a video.

    Attributes:
        path: of the file.
        name: of what is written for it, below the output folder and without a suffix.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Sequence[Path], output: Path) -> list[Input]:
    """Images and videos, in folders also, with their names below the output folder.

    A file of a folder is called by its path below that folder. What lies below the output folder
    is no input: it is of an earlier run.

    Raises:
        SetupError: a path is missing, of an unknown kind, or a folder without images and videos.
    """
    inputs: list[Input] = []
    problems = []
    for path in paths:
        if path.is_dir() and path.resolve() == output.resolve():
            problems.append(f"--output {path} is also an --input: choose another folder")
        elif path.is_dir():
            try:
                found = _in_folder(path, output.resolve())
            except OSError as error:
                problems.append(f"--input: {error.strerror}")
                continue
            if not found:
                problems.append(f"--input: no images or videos in {path}")
            inputs += found
        elif not path.is_file():
            problems.append(f"--input: nothing at {path}")
        elif path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            inputs.append(Input(path, path.stem))
        else:
            problems.append(
                f"--input: {path} is no image ({', '.join(IMAGE_SUFFIXES)}) or video "
                f"({', '.join(VIDEO_SUFFIXES)})"
            )
    raise_problems(problems)
    return inputs


def _in_folder(folder: Path, output: Path) -> list[Input]:
    root = folder.resolve()
    return [
        Input(path, path.relative_to(folder).with_suffix("").as_posix())
        for path in files_below(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES
        and not path.name.startswith(".")
        # Of an earlier run, where results are written below the inputs.
        and not (output != root and output.is_relative_to(root) and _is_below(path, output))
    ]


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


def output_problems(
    inputs: Sequence[Input], output: Path, task: Task, style: PredictionStyle
) -> list[str]:
    """Files that would be written for two inputs, or over an input; both are named."""
    owners = _owners(inputs, task, style)
    clashes: dict[tuple[int, int], str] = {}
    for file, numbers in owners.items():
        taken = dict.fromkeys(numbers[1:], file)
        taken |= {n: folder for folder in _folders_of(file) for n in owners.get(folder, [])}
        for number, place in taken.items():
            if number != numbers[0]:
                clashes.setdefault((numbers[0], number), place)
    problems = [
        _clash(inputs[one].path, inputs[two].path, output / file)
        for (one, two), file in clashes.items()
    ]
    problems = first_few(problems, what="inputs")
    sources = {item.path.resolve() for item in inputs}
    if over := [file for file in owners if (output / file).resolve() in sources]:
        problems.append(
            f"--output {output}: {over[0]} would be written over an --input of that name: choose "
            "another folder"
        )
    return (
        problems
        + [
            f"--output {output}: {name} is there already and is no label map, so no earlier "
            "prediction: move it away, or choose another folder"
            for name in owners
            if _is_foreign(output / name)
        ][:1]
    )


def _is_foreign(path: Path) -> bool:
    """Whether something is in the place of a result that can't be an earlier one.

    Overlays and label maps have names of their own; files that are called as the images are label
    maps, of one channel.
    """
    if path.stem.endswith(("_overlay", "_labels")) or not path.exists():
        return False
    try:
        with Image.open(path) as image:
            return len(image.getbands()) > 1
    except Exception:  # Pillow's decoders raise many kinds; it is no picture
        return True


def _clash(one: Path, two: Path, file: Path) -> str:
    if one == two:
        return f"--input: {one} is given twice, and {file} would be written twice: name it once"
    return (
        f"--input: {one} and {two} would both write {file}: rename one of them, or predict them "
        "into different folders"
    )


def _owners(inputs: Sequence[Input], task: Task, style: PredictionStyle) -> dict[str, list[int]]:
    """The files that are written, below the output folder, with the numbers of their inputs.

    How many frames a video has isn't known: the first stands for all of them.
    """
    owners: dict[str, list[int]] = {}
    frames = _frame_files(inputs, task, style)
    for number, item in enumerate(inputs):
        for file in _written(item, task, style):
            folder, _, name = file.rpartition("/")
            if folder in frames and frames[folder].fullmatch(name):
                file = f"{folder}/{frame_name(0)}"
            numbers = owners.setdefault(file, [])
            if number not in numbers[-1:]:
                numbers.append(number)
    return owners


def _written(item: Input, task: Task, style: PredictionStyle) -> list[str]:
    """The files of an input, below the output folder; of a video's frames, the first."""
    if not item.is_video:
        return task.file_names(item.name, style)
    files = [overlay_name(item.name)] if style.overlay else []
    plain = replace(style, overlay=False, plain_names=True)
    return files + task.file_names(f"{item.name}/{frame_name(0)}", plain)


def _frame_files(
    inputs: Sequence[Input], task: Task, style: PredictionStyle
) -> dict[str, re.Pattern[str]]:
    """The folder of each video's frames, and what its files are called."""
    plain = replace(style, overlay=False, plain_names=True)
    ends = "|".join(re.escape(name.removeprefix("x")) for name in task.file_names("x", plain))
    pattern = re.compile(rf"\d{{6,}}({ends})")
    return {item.name: pattern for item in inputs if item.is_video and style.values}


def _folders_of(file: str) -> Iterator[str]:
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file


def batches_of(
    images: Iterable[Input],
    size: int,
    window: tuple[float, float] | None,
    unusable: list[str],
) -> Iterator[list[tuple[Input, np.ndarray]]]:
    """Images in their order, at most ``size`` at once, of one size.

    Those that can't be read are left out and named in ``unusable``.
    """
    batch: list[tuple[Input, np.ndarray]] = []
    for item in images:
        try:
            image = read_image(item.path, window)
        except DataError as error:
            unusable.append(str(error))
            continue
        if batch and (len(batch) == size or batch[0][1].shape != image.shape):
            yield batch
            batch = []
        batch.append((item, image))
    if batch:
        yield batch
