"""Whether the checkpoints that a config names are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from afdcd.config import ConfigError
from afdcd.data import Dataset, LabelMap, get_spec
from afdcd.tasks import task_of
from afdcd.utils.problems import Problem


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
    problems += teacher_class_problems(cfg, teacher_cfg)
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


def teacher_class_problems(cfg: Any, teacher_cfg: Any) -> list[str]:
    """Whether the teacher was trained on the student's classes, in the student's order.

    By the data sets that the two configs train on, as far as their targets are known.
    """
    problems: list[str] = []
    own, theirs = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, teacher_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    try:
        names = cfg.DATASETS.TRAIN[0], teacher_cfg.DATASETS.TRAIN[0]
        one, other = (task_of(Dataset(get_spec(name), [], LabelMap(1))) for name in names)
    except (KeyError, IndexError, ValueError):
        pass  # said elsewhere, or data sets of Detectron2
    else:
        if type(one) is type(other):
            problems += [
                Problem(f"the teacher was trained on {names[1]}: {text}", "class-order")
                for text in one.mixing_problems(other)
            ]
    if own != theirs and not problems:
        text = f"the teacher has {theirs} classes (NUM_CLASSES), the student {own}"
        problems.append(Problem(text, "classes"))
    return problems
