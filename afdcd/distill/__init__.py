"""Distillation: feature taps, the frozen teacher, and the distiller."""

from afdcd.distill.build import build_distiller, distiller_settings, training_size
from afdcd.distill.distiller import Distiller, tap_shapes
from afdcd.distill.objectives import Objective, Objectives
from afdcd.distill.settings import DistillerSettings, LossSettings
from afdcd.distill.taps import FeatureTaps, TapError
from afdcd.distill.teacher import FrozenTeacher

__all__ = [
    "Distiller",
    "DistillerSettings",
    "FeatureTaps",
    "FrozenTeacher",
    "LossSettings",
    "Objective",
    "Objectives",
    "TapError",
    "build_distiller",
    "distiller_settings",
    "tap_shapes",
    "training_size",
]
