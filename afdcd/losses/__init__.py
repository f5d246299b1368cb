"""The losses of Af-DCD: tensors in, scalars out. Imports torch only."""

from afdcd.losses.afdcd import AfDCDLoss
from afdcd.losses.contrast import patch_contrast
from afdcd.losses.logit_kd import LogitKDLoss, logit_kd
from afdcd.losses.masks import centre_mask, random_mask
from afdcd.losses.projection import ProjectionPaths
from afdcd.losses.projector import EnhancedProjector, PlainProjector
from afdcd.losses.reconstruction import masked_reconstruction

__all__ = [
    "AfDCDLoss",
    "EnhancedProjector",
    "LogitKDLoss",
    "PlainProjector",
    "ProjectionPaths",
    "centre_mask",
    "logit_kd",
    "masked_reconstruction",
    "patch_contrast",
    "random_mask",
]
