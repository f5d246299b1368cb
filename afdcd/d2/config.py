"""Detectron2's config with AfDCD's keys."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.engine import DefaultTrainer
from detectron2.projects.deeplab import add_deeplab_config

from afdcd.config import (
    COMMAND_LINE,
    ConfigError,
    add_afdcd_config,
    merge_file,
    merge_overrides,
)
from afdcd.models import BACKBONES


class Config(CfgNode):
    """Detectron2's config, read by this package's rules in any script.

    Teachers and data set descriptions are looked for beside the YAML file that names them,
    ``IMPORTS`` are imported, losses are merged by label, and errors name the nearest keys.
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """See `merge_file`. Nothing unsafe is ever loaded."""
        merge_file(self, cfg_filename)
        _join_families(self)

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """See `merge_overrides`."""
        merge_overrides(self, [v if isinstance(v, str) else repr(v) for v in cfg_list])
        _join_families(self)


def _join_families(cfg: CfgNode) -> bool:
    """Have Detectron2 know a backbone such as ``timm:NAME`` by its whole name."""
    return cfg.MODEL.BACKBONE.NAME in BACKBONES


def get_cfg() -> CfgNode:
    """Detectron2's defaults, the DeepLab project's keys, and AfDCD's."""
    cfg = Config(get_detectron2_cfg())
    add_deeplab_config(cfg)
    add_afdcd_config(cfg)
    return cfg


def configure(config_file: str, overrides: list[str], source: str = COMMAND_LINE) -> CfgNode:
    """The config of a file and KEY VALUE overrides, which are from ``source``.

    Raises:
        ConfigError: see `merge_file` and `merge_overrides`.
    """
    cfg = get_cfg()
    merge_file(cfg, config_file)
    merge_overrides(cfg, overrides, source)
    _join_families(cfg)
    return cfg


def scaled(cfg: CfgNode, processes: int) -> CfgNode:
    """The config for this many processes, where ``SOLVER.REFERENCE_WORLD_SIZE`` asks for it.

    Before anything is checked, so that what is checked is what is trained.

    Raises:
        ConfigError: the reference's processes can't share its batch.
    """
    reference, images = cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.IMS_PER_BATCH
    if reference < 0 or (reference and images % reference):
        raise ConfigError(
            f"SOLVER.REFERENCE_WORLD_SIZE {reference}: SOLVER.IMS_PER_BATCH {images} can't be "
            "shared out evenly among that many processes; 0 leaves the config as it is"
        )
    return DefaultTrainer.auto_scale_workers(cfg, processes)


def teacher_config(cfg: CfgNode) -> CfgNode:
    """The config that ``MODEL.DISTILLER.TEACHER`` names, with its overrides.

    Raises:
        ConfigError: it can't be read.
    """
    settings = cfg.MODEL.DISTILLER.TEACHER
    teacher_cfg = configure(settings.CONFIG_FILE, [str(word) for word in settings.OPTS], "OPTS")
    teacher_cfg.MODEL.WEIGHTS = settings.WEIGHTS or teacher_cfg.MODEL.WEIGHTS
    # One device for both.
    teacher_cfg.MODEL.DEVICE = cfg.MODEL.DEVICE
    return teacher_cfg


def trained_architecture(cfg: Any) -> str:
    """The meta-architecture of what is trained: of a distiller, its student's."""
    name = cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.DISTILLER.STUDENT if name == "Distiller" else name
