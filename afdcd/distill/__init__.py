"""Distillation: feature taps, the frozen teacher, and the distiller."""

from afdcd.distill.build import build_distiller, training_size
from afdcd.distill.distiller import Distiller, tap_shapes
from afdcd.distill.objectives import Objective, Objectives
from afdcd.distill.taps import FeatureTaps, TapError
from afdcd.distill.teacher import FrozenTeacher

__all__ = [
    "Distiller",
    "FeatureTaps",
    "FrozenTeacher",
    "Objective",
    "Objectives",
    "TapError",
    "build_distiller",
    "tap_shapes",
    "training_size",
]
