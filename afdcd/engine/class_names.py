"""Names of classes: a data set's, a file's, or as a config lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afdcd.config.files import CLASS_FILE
from afdcd.data import get_spec

KEY = "MODEL.DISTILLER.TEACHER.CLASSES"


def listed_classes(values: Sequence[str]) -> tuple[str, ...]:
    """The names that ``TEACHER.CLASSES`` stands for.

    Args:
        values: names in the channels' order; or a text file with a name a line, or the name of a
            data set, alone.

    Raises:
        ValueError: a single value that is no file and no data set, or a file that can't be read.
    """
    if len(values) != 1:
        return tuple(values)
    (value,) = values
    if value.endswith(CLASS_FILE):
        try:
            lines = Path(value).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ValueError(f"{KEY}: {value} can't be read ({error})") from error
        return tuple(line.strip() for line in lines if line.strip())
    if names := dataset_classes([value]):
        return names
    raise ValueError(
        f"{KEY} [{value}]: no data set of classes is called so; list the names of all classes, or "
        f"name a text file ({CLASS_FILE}) with a name a line"
    )


def dataset_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of the first of some data sets; empty where it isn't known or has none."""
    try:
        spec = get_spec(names[0])
    except (KeyError, IndexError, ValueError):
        return ()
    return spec.classes if spec.task == "semantic_segmentation" else ()
