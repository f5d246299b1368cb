"""Finding everything that is wrong before training starts, in one go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from afdcd.checkpoints import Checkpoints
from afdcd.data import DataError, Dataset, read_labels
from afdcd.data.images import read_image

INSTALL_DETECTRON2 = (
    "Install Detectron2 by its official instructions "
    "(https://detectron2.readthedocs.io/tutorials/install.html), then repeat the command"
)
# Files beyond so many are not all opened before training.
FILES_CHECKED = 1000


class SetupError(Exception):
    """The run can't start. Holds every problem found, not just the first.

    Attributes:
        problems: one sentence or more each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            lines = "\n".join(f"  {n}. {text}" for n, text in enumerate(self.problems, 1))
            super().__init__(f"{len(self.problems)} things stand in the way:\n{lines}")


def weights_problems(path: str, key: str, *, needed: bool) -> list[str]:
    """Whether a checkpoint file is named and there."""
    if not path:
        return [f"{key} is empty: name the checkpoint to load"] if needed else []
    if not Path(path).is_file():
        return [f"{key}: no checkpoint at {Path(path).absolute()}"]
    return []


def batch_problems(cfg: Any, processes: int = 1) -> list[str]:
    """Whether ``SOLVER.ACCUMULATE`` and ``DATALOADER.ECHO`` can work with the batch."""
    problems = []
    images, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    if cfg.DATALOADER.ECHO < 1:
        problems.append(f"DATALOADER.ECHO must be at least 1; got {cfg.DATALOADER.ECHO}")
    if parts < 1:
        return [*problems, f"SOLVER.ACCUMULATE must be at least 1; got {parts}"]
    among = f"{parts} parts (SOLVER.ACCUMULATE)"
    if processes > 1:
        among += f" in {processes} processes"
    if images % (processes * parts):
        problems.append(f"SOLVER.IMS_PER_BATCH {images} can't be shared out evenly to {among}")
    elif parts > 1 and images // (processes * parts) < 2 and _pools_images(cfg):
        problems.append(
            f"SOLVER.IMS_PER_BATCH {images} leaves one image for each of {among}, but BatchNorm "
            f"of image averages ({cfg.MODEL.SEM_SEG_HEAD.NAME}) needs two: take fewer parts"
        )
    return problems


def _pools_images(cfg: Any) -> bool:
    """Whether a head normalizes averages of whole images by the statistics of a batch."""
    head = cfg.MODEL.SEM_SEG_HEAD
    return head.NAME in ("ASPPHead", "PSPHead") and head.NORM == "BN"


def find_datasets(
    names: Sequence[str], key: str, problems: list[str], load: Callable[[str], Dataset]
) -> list[Dataset]:
    """Load the data sets of a key by ``load``; what fails is added to ``problems``."""
    found = []
    if not names:
        problems.append(f"{key} is empty: name a data set")
    for name in names:
        try:
            found.append(load(name))
        except KeyError as error:
            problems.append(f"{key}: {error.args[0]}")
        except (DataError, ValueError, OSError, AssertionError) as error:
            problems.append(f"{key}: {error}")
    return found


def class_problems(cfg: Any, datasets: Sequence[Dataset]) -> list[str]:
    """Whether model and data sets have the same classes."""
    problems = []
    for dataset in datasets:
        expected, got = len(dataset.spec.classes), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if expected != got:
            problems.append(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {got}, but {dataset.spec.name} has {expected} "
                "classes"
            )
    return problems


def file_problems(dataset: Dataset, workers: int = 4) -> list[str]:
    """Files that can't be read, differ in size, or hold labels that the data set doesn't define.

    Of more than `FILES_CHECKED` pairs, so many are opened, evenly spread.
    """
    records = dataset.records
    step = max(1, -(-len(records) // FILES_CHECKED))
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda record: _pair_problem(record, dataset), records[::step]))
    problems = [text for text in found if text]
    if len(problems) > 5:
        problems[5:] = [f"{dataset.spec.name}: {len(problems) - 5} more files like these"]
    return problems


def _pair_problem(record: dict[str, Any], dataset: Dataset) -> str:
    try:
        labels = read_labels(record["sem_seg_file_name"], dataset.label_map)
        image = read_image(record["file_name"], record.get("window"))
    except DataError as error:
        return str(error)
    if image.shape[:2] != labels.shape:
        return (
            f"{record['file_name']} is {image.shape[0]}x{image.shape[1]} but its label map "
            f"{record['sem_seg_file_name']} is {labels.shape[0]}x{labels.shape[1]}"
        )
    return ""


def output_problems(folder: Path) -> list[str]:
    """Whether ``OUTPUT_DIR`` can be made and written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write_test_"):
            pass
    except OSError as error:
        return [f"OUTPUT_DIR {folder.absolute()} can't be written: {error.strerror or error}"]
    return []


def occupied_problems(checkpoints: Checkpoints) -> list[str]:
    """Whether a new run would overwrite another one."""
    last = checkpoints.last()
    if last is None:
        return []
    return [
        f"OUTPUT_DIR {checkpoints.folder} already holds a run ({last.name}): add --resume to go "
        "on with it, or choose another OUTPUT_DIR"
    ]


def raise_problems(*checks: Callable[[], list[str]] | list[str]) -> None:
    """Raise one SetupError with all problems of all checks, or nothing."""
    problems = [text for check in checks for text in (check() if callable(check) else check)]
    if problems:
        raise SetupError(problems)
