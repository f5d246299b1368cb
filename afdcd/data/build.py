"""How data are loaded, as a config describes it."""

from __future__ import annotations

from typing import Any

from afdcd.data.mapper import TrainingAugmentation
from afdcd.data.settings import LoadingSettings
from afdcd.utils.problems import constructed, refuse


def loading_settings(cfg: Any) -> LoadingSettings:
    """From ``INPUT`` and ``DATALOADER``.

    Raises:
        SettingsError: everything in them that can't work.
    """
    problems: list[str] = []
    own = cfg.INPUT.MAPPER == "scale_crop"
    augmentation = None
    if own:
        mean = tuple(cfg.MODEL.PIXEL_MEAN)
        augmentation = constructed(
            lambda: _augmentation(cfg.INPUT.SCALE_CROP, cfg.INPUT.RANDOM_FLIP, mean), problems
        )
    if own and len(cfg.INPUT.MIN_SIZE_TRAIN) != 1:
        problems.append(
            "INPUT.MIN_SIZE_TRAIN takes one size, or 0 to keep it (the random scale comes from "
            f"INPUT.SCALE_CROP); got {tuple(cfg.INPUT.MIN_SIZE_TRAIN)}"
        )
    settings = constructed(
        lambda: LoadingSettings(
            augmentation=augmentation,
            train_short_side=cfg.INPUT.MIN_SIZE_TRAIN[0] if own and cfg.INPUT.MIN_SIZE_TRAIN else 0,
            test_short_side=cfg.INPUT.MIN_SIZE_TEST,
            image_format=cfg.INPUT.FORMAT,
            workers=cfg.DATALOADER.NUM_WORKERS,
            cache_mb=cfg.DATALOADER.CACHE_MB,
            cache_dir=cfg.DATALOADER.CACHE_DIR,
            echo=cfg.DATALOADER.ECHO,
            teacher_factor=_teacher_factor(cfg.MODEL),
        ),
        problems,
    )
    refuse(problems)
    assert settings is not None
    return settings


def _teacher_factor(model: Any) -> float:
    distils = model.META_ARCHITECTURE == "Distiller"
    return float(model.DISTILLER.TEACHER.RESOLUTION) if distils else 1.0


def _augmentation(crop: Any, flip: str, mean: tuple[float, ...]) -> TrainingAugmentation:
    """The paper's, from ``INPUT.SCALE_CROP``; padded with the mean colour."""
    problems = []
    if len(crop.SIZE) != 2 or len(crop.SCALES) != 2:
        problems.append(
            "INPUT.SCALE_CROP: SIZE is [height, width], SCALES [smallest, largest]; got "
            f"{list(crop.SIZE)} and {list(crop.SCALES)}"
        )
    if flip not in ("horizontal", "none"):
        problems.append(f"INPUT.RANDOM_FLIP must be horizontal or none; got {flip}")
    refuse(problems)
    try:
        return TrainingAugmentation(
            (crop.SIZE[0], crop.SIZE[1]),
            scales=(crop.SCALES[0], crop.SCALES[1]),
            scale_step=crop.SCALE_STEP,
            flip=flip == "horizontal",
            pad_value=mean,
        )
    except (ValueError, TypeError) as error:
        refuse([f"INPUT.SCALE_CROP: {error}"])
        raise
