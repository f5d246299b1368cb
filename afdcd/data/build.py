"""How data are loaded, as a config describes it."""

from __future__ import annotations

from typing import Any

from afdcd.data.mapper import TrainingAugmentation
from afdcd.data.settings import LoadingSettings
from afdcd.data.stream import BatchMix
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
            mix=batch_mix(cfg, problems),
        ),
        problems,
    )
    refuse(problems)
    assert settings is not None
    return settings


def batch_mix(cfg: Any, problems: list[str]) -> BatchMix | None:
    """From ``DATASETS.UNLABELED_SHARE``; None where all or none of the images have labels."""
    data = cfg.DATASETS
    if not data.UNLABELED:
        return None
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        problems.append(
            "DATASETS.UNLABELED: without labels there is only a teacher to learn from: set "
            "MODEL.META_ARCHITECTURE Distiller, or leave it empty"
        )
    if cfg.INPUT.MAPPER != "scale_crop":
        problems.append(f"DATASETS.UNLABELED takes INPUT.MAPPER scale_crop; got {cfg.INPUT.MAPPER}")
    if not data.TRAIN:
        return None
    key, batch = "DATASETS.UNLABELED_SHARE", cfg.SOLVER.IMS_PER_BATCH
    number = data.UNLABELED_SHARE * batch
    if not 0 < number < batch or abs(number - round(number)) > 1e-6:
        shares = ", ".join(f"{count / batch:.6g}" for count in range(1, batch)) or "none"
        problems.append(
            f"{key} {data.UNLABELED_SHARE:g} of SOLVER.IMS_PER_BATCH {batch} is {number:g} images: "
            f"it takes a whole number of them, at least one with labels and one without ({shares})"
        )
        return None
    return BatchMix(batch, round(number))


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
