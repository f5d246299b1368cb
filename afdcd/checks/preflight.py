"""Finding everything that is wrong before training starts, in one go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from afdcd.config import ConfigError, differences, merge_file
from afdcd.data import DataError, Dataset, TrainingAugmentation, read_labels
from afdcd.data.images import read_image
from afdcd.distill import distiller_settings
from afdcd.engine.checkpoints import Checkpoints
from afdcd.engine.precision import DTYPES
from afdcd.models.build import HEADS
from afdcd.utils.problems import collect, first_few

INSTALL_DETECTRON2 = (
    "Install Detectron2 by its official instructions "
    "(https://detectron2.readthedocs.io/tutorials/install.html), then repeat the command"
)
# Files beyond so many are not all opened before training.
FILES_CHECKED = 1000


def weights_problems(path: str, key: str, *, needed: bool) -> list[str]:
    """Whether a checkpoint file is named and there."""
    if not path:
        return [f"{key} is empty: name the checkpoint to load"] if needed else []
    if not Path(path).is_file():
        hint = "" if needed else f". To start from random weights, set {key} to ''"
        return [f"{key}: no checkpoint at {Path(path).absolute()}{hint}"]
    return []


def teacher_problems(
    cfg: Any,
    read: Callable[[Any], Any],
    check: Callable[[Any], list[str]],
    *,
    urls: bool = False,
) -> list[str]:
    """What is wrong with ``MODEL.DISTILLER.TEACHER``, where the config distils.

    Args:
        cfg: the student's config.
        read: gives the teacher's config.
        check: finds what is wrong with that.
        urls: whether weights may be addresses, which are fetched later.
    """
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        return []
    key = "MODEL.DISTILLER.TEACHER"
    if not cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE:
        return [f"{key}.CONFIG_FILE is empty: name the teacher's YAML file"]
    try:
        teacher_cfg = read(cfg)
    except ConfigError as error:
        return [f"{key}: {error}"]
    problems = [f"the teacher's config: {text}" for text in check(teacher_cfg)]
    weights = teacher_cfg.MODEL.WEIGHTS
    if urls and "://" in weights:
        return problems
    return problems + teacher_weights_problems(cfg, weights)


def teacher_weights_problems(cfg: Any, path: str) -> list[str]:
    """Whether the teacher's checkpoint is there, with the command that makes it where it isn't."""
    settings = cfg.MODEL.DISTILLER.TEACHER
    problems = weights_problems(path, "MODEL.DISTILLER.TEACHER.WEIGHTS", needed=True)
    command = f"tools/train_net.py --config-file {settings.CONFIG_FILE}"
    return [f"{text}. {command} trains the teacher" for text in problems]


def setting_problems(cfg: Any) -> list[str]:
    """Settings that can't work in either runtime, whatever data and models are."""
    problems = []
    if cfg.SOLVER.MAX_ITER < 1:
        problems.append(f"SOLVER.MAX_ITER must be at least 1; got {cfg.SOLVER.MAX_ITER}")
    if cfg.SOLVER.AMP.DTYPE not in DTYPES:
        problems.append(
            f"SOLVER.AMP.DTYPE must be one of {', '.join(DTYPES)}; got {cfg.SOLVER.AMP.DTYPE}"
        )
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        problems += collect(lambda: distiller_settings(cfg))
    if cfg.INPUT.FORMAT not in ("BGR", "RGB") and cfg.INPUT.MAPPER == "scale_crop":
        problems.append(f"INPUT.FORMAT must be BGR or RGB; got {cfg.INPUT.FORMAT}")
    if cfg.INPUT.MAPPER != "scale_crop":
        return problems  # Detectron2's own settings
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


def batch_problems(cfg: Any, processes: int = 1, *, synchronised: bool = False) -> list[str]:
    """Whether the batch can be shared out and normalized, and ``DATALOADER.ECHO`` be used.

    Args:
        cfg: the config.
        processes: that share the batch.
        synchronised: whether BatchNorm takes the images of all processes together.
    """
    problems = []
    images, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    if cfg.DATALOADER.ECHO < 1:
        problems.append(f"DATALOADER.ECHO must be at least 1; got {cfg.DATALOADER.ECHO}")
    if parts < 1:
        return [*problems, f"SOLVER.ACCUMULATE must be at least 1; got {parts}"]
    least = 2 * parts * (1 if synchronised else processes)
    if images < least and _pools_images(cfg):
        problems.append(
            f"SOLVER.IMS_PER_BATCH must be at least {least}, since {cfg.MODEL.SEM_SEG_HEAD.NAME} "
            "normalizes image averages over a batch, which takes two images"
            + ("" if least == 2 else " in each part (SOLVER.ACCUMULATE) of each process")
            + f"; got {images}"
        )
    elif images < 1 or images % (processes * parts):
        among = f"{parts} parts (SOLVER.ACCUMULATE)"
        if processes > 1:
            among += f" in {processes} processes"
        problems.append(f"SOLVER.IMS_PER_BATCH {images} can't be shared out evenly to {among}")
    return problems


def _pools_images(cfg: Any) -> bool:
    """Whether a head normalizes averages of whole images by the statistics of a batch."""
    head = cfg.MODEL.SEM_SEG_HEAD
    return head.NAME in HEADS and head.NORM == "BN"


def crop_problems(cfg: Any) -> list[str]:
    """What is wrong with ``INPUT.SCALE_CROP``."""
    crop = cfg.INPUT.SCALE_CROP
    if cfg.INPUT.MAPPER != "scale_crop":
        return []
    if len(crop.SIZE) != 2 or len(crop.SCALES) != 2:
        return [
            "INPUT.SCALE_CROP: SIZE is [height, width], SCALES [smallest, largest]; got "
            f"{list(crop.SIZE)} and {list(crop.SCALES)}"
        ]
    try:
        TrainingAugmentation(
            (crop.SIZE[0], crop.SIZE[1]),
            scales=(crop.SCALES[0], crop.SCALES[1]),
            scale_step=crop.SCALE_STEP,
        )
    except (ValueError, TypeError) as error:
        return [f"INPUT.SCALE_CROP: {error}"]
    return []


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
    return first_few([text for text in found if text], of=dataset.spec.name)


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


def output_problems(folder: Path, key: str = "OUTPUT_DIR") -> list[str]:
    """Whether the folder that a key or option names can be made and written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write_test_"):
            pass
    except OSError as error:
        return [f"{key} {folder.absolute()} can't be written: {error.strerror or error}"]
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


def mixed_label_problems(train: Sequence[Dataset]) -> list[str]:
    """Whether the training sets' files are read in one way."""
    if any(d.label_map != train[0].label_map for d in train[1:]):
        return ["DATASETS.TRAIN: the data sets store their labels in different ways"]
    return []


def resume_problems(cfg: Any, state: Mapping[str, Any]) -> list[str]:
    """Whether a checkpoint's content is beyond the end of the run."""
    done = state["iteration"] + 1
    if done <= cfg.SOLVER.MAX_ITER:
        return []
    return [f"the checkpoint is at iteration {done}, beyond SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER}"]


def changed_settings(cfg: Any, defaults: Any, copy: Path) -> str:
    """What differs from the config that a run was started with, in words; empty for nothing.

    Args:
        cfg: the config now.
        defaults: a new config of the same runtime; changed.
        copy: the config that the run wrote when it started.
    """
    if not copy.is_file():
        return ""
    try:
        merge_file(defaults, copy)
    except ValueError as error:
        return f"can't compare with the config the run was started with: {error}"
    # A seed that was drawn stays.
    aside = ("OUTPUT_DIR:", "SEED:") if cfg.SEED < 0 else ("OUTPUT_DIR:",)
    changed = [line for line in differences(defaults, cfg) if not line.startswith(aside)]
    if not changed:
        return ""
    lines = "\n  ".join(changed)
    return f"The run was started with other settings, and is not the same run any more:\n  {lines}"
