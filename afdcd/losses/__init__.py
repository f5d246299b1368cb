"""The losses of Af-DCD: tensors in, scalars out. Needs torch (and fvcore's registry)."""

from afdcd.losses.afdcd.contrast import patch_contrast
from afdcd.losses.afdcd.loss import AfDCDLoss
from afdcd.losses.afdcd.masks import centre_mask, random_mask
from afdcd.losses.afdcd.projector import EnhancedProjector, PlainProjector
from afdcd.losses.afdcd.reconstruction import masked_reconstruction
from afdcd.losses.afdcd.settings import AfDCDSettings
from afdcd.losses.cwd import CWDLoss, cwd
from afdcd.losses.dist import DISTLoss, dist
from afdcd.losses.feature_kd import FeatureKDLoss, feature_kd
from afdcd.losses.logit_kd import LogitKDLoss, logit_kd
from afdcd.losses.output_kd import OutputKDLoss, output_kd
from afdcd.losses.registry import LOSSES, DistillationLoss, LossContext, LossDescription, TapShape

__all__ = [
    "LOSSES",
    "AfDCDLoss",
    "AfDCDSettings",
    "CWDLoss",
    "DISTLoss",
    "DistillationLoss",
    "EnhancedProjector",
    "FeatureKDLoss",
    "LogitKDLoss",
    "LossContext",
    "LossDescription",
    "OutputKDLoss",
    "PlainProjector",
    "TapShape",
    "centre_mask",
    "cwd",
    "dist",
    "feature_kd",
    "logit_kd",
    "masked_reconstruction",
    "output_kd",
    "patch_contrast",
    "random_mask",
]
