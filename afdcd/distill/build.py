"""Build a distiller from a config, in either runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afdcd.distill.classes import ClassMatching
from afdcd.distill.distiller import Distiller, tap_shapes
from afdcd.distill.plan import build_objectives, plan_objectives, target_shape
from afdcd.distill.record import Store, TeacherRecord
from afdcd.distill.settings import DistillerSettings, read_losses
from afdcd.distill.targets import is_logits
from afdcd.distill.teacher import FrozenTeacher
from afdcd.distill.teacher_settings import DTYPES, TeacherSettings
from afdcd.losses.registry import TapShape
from afdcd.utils.problems import SettingsError, constructed
from afdcd.utils.seeds import MODULES, stream_seed


def build_distiller(
    cfg: Any,
    student: nn.Module,
    teacher: nn.Module | None,
    *,
    teacher_format: str = "BGR",
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    others: Sequence[tuple[nn.Module, str]] = (),
    store: Store | None = None,
    teacher_shapes: Mapping[str, TapShape] | None = None,
    classes: ClassMatching | None = None,
) -> Distiller:
    """Combine a student and a teacher as ``MODEL.DISTILLER`` says.

    Args:
        cfg: the student's config, with ``MODEL.DISTILLER``.
        student: the model to train.
        teacher: with its weights loaded; None where everything of it is recorded.
        teacher_format: the teacher's ``INPUT.FORMAT``; the student's is ``cfg.INPUT.FORMAT``.
        seed: of the losses' random draws (masks).
        part: which part of a batch this process has, and of how many.
        others: models whose logits are averaged with the teacher's, with their ``INPUT.FORMAT``.
        store: of the recorded teacher; None where there is none.
        teacher_shapes: of the teacher's taps for a training image, where there is no teacher.
        classes: which of them losses of logits compare; all, channel by channel, when None.

    Raises:
        TapError: a tap doesn't exist, or isn't one feature map.
        ValueError: settings don't fit the taps, the numbers of classes differ or aren't those that
            ``classes`` names, or the models pad their images to different sizes.
    """
    settings = distiller_settings(cfg)
    size = training_size(cfg)
    objectives = plan_objectives(settings.losses, classes)
    paths = [o.student_tap for o in objectives], [o.teacher_tap for o in objectives]
    of_student = tap_shapes(student, list(dict.fromkeys(paths[0])), size=size, whose="the student")
    of_teacher = dict(teacher_shapes or {})
    frozen = None
    if teacher is not None:
        fixed = size if _has_fixed_size(cfg.INPUT) else None
        if problem := _padding_problem(student, teacher, fixed, paths[1]):
            raise ValueError(problem)
        wanted = list(dict.fromkeys(paths[1]))
        of_teacher = tap_shapes(teacher, wanted, size=size, whose="the teacher")
        logits = [path for path in wanted if is_logits(path)]
        if logits and (factor := settings.teacher.resolution) != 1:
            # Of an image of its own resolution they stay as they are.
            own = (round(size[0] * factor), round(size[1] * factor))
            of_teacher |= tap_shapes(teacher, logits, size=own, whose="the teacher")
        frozen = _frozen_teacher(cfg, settings.teacher, teacher, teacher_format, others)
    if classes is not None:
        _check_class_counts(classes, of_student, of_teacher)
    # Of a seed of their own: whether a teacher was built before mustn't matter to their weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, MODULES))
        distillation = build_objectives(
            settings.losses,
            {("student", path): shape for path, shape in of_student.items()}
            | {("teacher", path): shape for path, shape in of_teacher.items()},
            seed=seed,
            part=part,
            steps=cfg.SOLVER.MAX_ITER,
            classes=classes,
        )
    record = None
    if store is not None:
        targets = distillation.targets
        channels = {t.name: target_shape(of_teacher[t.path], t).channels for t in targets}
        record = TeacherRecord(store, targets, channels, settings.teacher.record.encoding)
    formatted = cfg.MODEL.DISTILLER.STUDENT == "SemanticSegmentor"
    distiller = Distiller(
        student,
        frozen,
        distillation,
        record=record,
        format_student=formatted,
        unlabeled_only=settings.unlabeled_only,
    )
    distiller.teacher_shapes = of_teacher
    return distiller


def _frozen_teacher(
    cfg: Any,
    settings: TeacherSettings,
    model: nn.Module,
    image_format: str,
    others: Sequence[tuple[nn.Module, str]],
) -> FrozenTeacher:
    def frozen(model: nn.Module, image_format: str, **averages: Any) -> FrozenTeacher:
        flip = image_format != cfg.INPUT.FORMAT
        dtype = DTYPES[settings.dtype]
        return FrozenTeacher(model, flip_channels=flip, dtype=dtype, **averages)

    return frozen(
        model,
        image_format,
        scales=settings.scales,
        flip=settings.flip,
        others=[frozen(other, flavour) for other, flavour in others],
    )


def distiller_settings(cfg: Any) -> DistillerSettings:
    """The settings in ``MODEL.DISTILLER``.

    Raises:
        SettingsError: settings that can't work, whatever the models; lists all of them.
    """
    node = cfg.MODEL.DISTILLER
    problems: list[str] = []
    losses = constructed(lambda: read_losses(node.LOSSES), problems) or ()
    teacher = constructed(lambda: TeacherSettings.read(node.TEACHER), problems)
    found: list[str] = []
    settings = constructed(
        lambda: DistillerSettings(
            losses=losses,
            clip_gradients=node.CLIP_GRADIENTS,
            lr_factor=node.LR_FACTOR,
            images=node.IMAGES,
            teacher=teacher or TeacherSettings(),
        ),
        found,
    )
    # Without losses, its first problem is that there are none; the reason is already listed.
    problems += found if losses else found[1:]
    if settings is not None and settings.unlabeled_only and not cfg.DATASETS.UNLABELED:
        problems.append(
            "MODEL.DISTILLER.IMAGES unlabeled takes images in DATASETS.UNLABELED, which is empty: "
            "name some, or take all"
        )
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def training_size(cfg: Any) -> tuple[int, int]:
    """Height and width of training images; of the smallest, where they vary."""
    if cfg.INPUT.MAPPER == "scale_crop":
        height, width = cfg.INPUT.SCALE_CROP.SIZE
        return height, width
    if _has_fixed_size(cfg.INPUT):
        height, width = cfg.INPUT.CROP.SIZE
        return int(height), int(width)
    side = min(cfg.INPUT.MIN_SIZE_TRAIN) or 512  # 0: images as they are
    return side, side


def _has_fixed_size(images: Any) -> bool:
    """Whether all training images have one size, by ``INPUT``."""
    if images.MAPPER == "scale_crop":
        return True
    return images.CROP.ENABLED and images.CROP.TYPE == "absolute"


def _check_class_counts(
    classes: ClassMatching, student: Mapping[str, TapShape], teacher: Mapping[str, TapShape]
) -> None:
    """Raise ValueError unless logits have a channel for each class by name."""
    for whose, shapes, names in (
        ("student", student, classes.student),
        ("teacher", teacher, classes.teacher),
    ):
        for path, shape in shapes.items():
            if is_logits(path) and shape.channels != len(names):
                raise ValueError(
                    f"{path} of the {whose} gives {shape.channels} channels, but its classes are "
                    f"{len(names)}, from {names[0]!r} to {names[-1]!r}: name the classes that its "
                    "channels stand for (of a teacher in MODEL.DISTILLER.TEACHER.CLASSES)"
                )


def _padding_problem(
    student: nn.Module,
    teacher: nn.Module,
    size: tuple[int, int] | None,
    teacher_taps: Sequence[str],
) -> str | None:
    """What is wrong if the models' feature maps would not show the same area.

    Detectron2's models on a pyramid pad images to multiples of 32; others don't. Other people's
    models are padded to what they need, which their adapter crops away but from inner taps.

    Args:
        student, teacher: the models.
        size: of all training images; None where it varies.
        teacher_taps: module paths.
    """
    steps = [
        getattr(getattr(model, "backbone", None), "size_divisibility", 0) or 1
        for model in (student, teacher)
    ]
    padding_of: Any = getattr(teacher, "padding_of", None)
    if padding_of is not None:
        steps[1] = padding_of(teacher_taps)
    if steps[0] == steps[1]:
        return None
    if size and all(side % step == 0 for side in size for step in steps):
        return None
    return (
        f"the student pads images to multiples of {steps[0]}, the teacher of {steps[1]}, so that "
        "their feature maps would not show the same area: train on crops of a multiple of both "
        f"(now {f'{size[0]}x{size[1]}' if size else 'sizes vary'}), by INPUT.SCALE_CROP.SIZE or "
        "INPUT.CROP of TYPE absolute"
    )
