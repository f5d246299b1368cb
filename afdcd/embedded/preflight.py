"""Everything that can be known to be wrong before training starts, found in one go."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from afdcd.config import ConfigError
from afdcd.data import DataError, Dataset, load_dataset, read_labels
from afdcd.data.images import read_image
from afdcd.embedded.build import teacher_config
from afdcd.embedded.errors import SetupError
from afdcd.embedded.precision import DTYPES
from afdcd.models.build import BACKBONES, HEADS

logger = logging.getLogger(__name__)

INSTALL_DETECTRON2 = (
    "Install Detectron2 by its official instructions "
    "(https://detectron2.readthedocs.io/tutorials/install.html), then repeat the command"
)
# Files beyond so many are not all opened before training.
FILES_CHECKED = 1000


def needs_detectron2(cfg: Any) -> list[str]:
    """What the config asks for that only Detectron2 can do."""
    wanted = []
    model = cfg.MODEL
    if model.META_ARCHITECTURE not in ("SemanticSegmentor", "Distiller"):
        wanted.append(f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE}")
    if model.META_ARCHITECTURE == "Distiller" and model.DISTILLER.STUDENT != "SemanticSegmentor":
        wanted.append(f"MODEL.DISTILLER.STUDENT {model.DISTILLER.STUDENT}")
    if model.BACKBONE.NAME not in BACKBONES:
        wanted.append(f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME}")
    if model.SEM_SEG_HEAD.NAME not in HEADS:
        wanted.append(f"MODEL.SEM_SEG_HEAD.NAME {model.SEM_SEG_HEAD.NAME}")
    return wanted


def config_problems(cfg: Any) -> list[str]:
    """Settings that can't work in the embedded runtime, whatever the data."""
    problems = []
    if wanted := needs_detectron2(cfg):
        problems.append(
            f"{', '.join(wanted)}: that is Detectron2's, and the embedded runtime has only "
            f"{', '.join([*BACKBONES, *HEADS])}. {INSTALL_DETECTRON2}"
        )
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        problems.append(
            "SOLVER.LR_SCHEDULER_NAME: the embedded runtime has WarmupPolyLR only; got "
            f"{solver.LR_SCHEDULER_NAME}"
        )
    if solver.AMP.DTYPE not in DTYPES:
        problems.append(
            f"SOLVER.AMP.DTYPE must be one of {', '.join(DTYPES)}; got {solver.AMP.DTYPE}"
        )
    if solver.IMS_PER_BATCH < 2:
        problems.append(
            "SOLVER.IMS_PER_BATCH must be at least 2, since the heads normalize image averages "
            f"over the batch; got {solver.IMS_PER_BATCH}"
        )
    if solver.MAX_ITER < 1:
        problems.append(f"SOLVER.MAX_ITER must be at least 1; got {solver.MAX_ITER}")
    if cfg.INPUT.RANDOM_FLIP not in ("horizontal", "none"):
        problems.append(
            f"INPUT.RANDOM_FLIP must be horizontal or none; got {cfg.INPUT.RANDOM_FLIP}"
        )
    if len(cfg.INPUT.MIN_SIZE_TRAIN) != 1:
        problems.append(
            "INPUT.MIN_SIZE_TRAIN takes one size, or 0 to keep it (the random scale comes from "
            f"INPUT.SCALE_CROP); got {tuple(cfg.INPUT.MIN_SIZE_TRAIN)}"
        )
    return problems


def weights_problems(path: str, key: str, *, needed: bool) -> list[str]:
    """Whether a checkpoint file is named and there."""
    if not path:
        return [f"{key} is empty: name the checkpoint to load"] if needed else []
    if not Path(path).is_file():
        return [f"{key}: no checkpoint at {Path(path).absolute()}"]
    return []


def teacher_problems(cfg: Any) -> list[str]:
    """What is wrong with ``MODEL.DISTILLER.TEACHER``."""
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return []
    key = "MODEL.DISTILLER.TEACHER"
    if not cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE:
        return [f"{key}.CONFIG_FILE is empty: name the teacher's YAML file"]
    try:
        teacher_cfg = teacher_config(cfg)
    except ConfigError as error:
        return [f"{key}: {error}"]
    problems = [f"the teacher's config: {text}" for text in config_problems(teacher_cfg)]
    return problems + weights_problems(teacher_cfg.MODEL.WEIGHTS, f"{key}.WEIGHTS", needed=True)


def find_datasets(names: Sequence[str], key: str, problems: list[str]) -> list[Dataset]:
    """Load the data sets of a key; what fails is added to ``problems``."""
    found = []
    if not names:
        problems.append(f"{key} is empty: name a data set")
    for name in names:
        try:
            found.append(load_dataset(name))
        except KeyError as error:
            problems.append(f"{key}: {error.args[0]}")
        except DataError as error:
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
        image = read_image(record["file_name"])
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


def device_problems(num_gpus: int | None) -> list[str]:
    """Whether a GPU was asked for (``--num-gpus``) where there is none."""
    if num_gpus == 1 and not torch.cuda.is_available():
        return ["--num-gpus 1, but PyTorch sees no CUDA device: use --num-gpus 0 for the CPU"]
    return []


def choose_device(cfg: Any, num_gpus: int | None) -> torch.device:
    """``MODEL.DEVICE``; the CPU with ``--num-gpus 0``, or (saying so) where there is no GPU."""
    if num_gpus == 0 or cfg.MODEL.DEVICE == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device(cfg.MODEL.DEVICE)
    logger.warning(
        "MODEL.DEVICE is %s, but PyTorch sees no such device: running on the CPU", cfg.MODEL.DEVICE
    )
    return torch.device("cpu")


def raise_problems(*checks: Callable[[], list[str]] | list[str]) -> None:
    """Raise one SetupError with all problems of all checks, or nothing."""
    problems = [text for check in checks for text in (check() if callable(check) else check)]
    if problems:
        raise SetupError(problems)
