"""The settings of the Af-DCD loss."""

from __future__ import annotations

from dataclasses import dataclass

from afdcd.losses.afdcd.contrast import check_contrast_settings
from afdcd.losses.afdcd.kernels.contrast import check_kernel
from afdcd.losses.afdcd.masks import check_mask_kind, check_mask_ratio
from afdcd.losses.afdcd.projection import check_masked_conv
from afdcd.losses.afdcd.projector import check_projector_kind
from afdcd.losses.reduction import check_reduction
from afdcd.utils.problems import SettingsError, collect


@dataclass(frozen=True)
class AfDCDSettings:
    """How two maps are compared, whatever their shapes; see `AfDCDLoss` for each.

    Raises:
        SettingsError: settings that can't work; lists all of them.
    """

    mask: str = "random"
    mask_ratio: float = 0.75
    projector: str = "plain"
    kind: str = "omni"
    groups: int = 16
    patch: tuple[int, int] = (4, 4)
    pool: int = 4
    temperature: float = 0.07
    distance: str = "l1"
    reduction: str = "published"
    kernel: str = "auto"
    masked_conv: str = "auto"

    def __post_init__(self) -> None:
        problems = collect(
            lambda: check_mask_kind(self.mask),
            lambda: check_mask_ratio(self.mask_ratio),
            lambda: check_projector_kind(self.projector),
            self.contrast_sizes,
            lambda: check_reduction(self.reduction),
            lambda: check_kernel(self.kernel),
            lambda: check_masked_conv(self.masked_conv),
        )
        if problems:
            raise SettingsError(problems)
        object.__setattr__(self, "patch", (self.patch[0], self.patch[1]))

    def contrast_sizes(self) -> tuple[int, tuple[int, int], int]:
        """Groups, patch and pool as ``kind`` uses them: see `check_contrast_settings`."""
        return check_contrast_settings(
            self.kind,
            groups=self.groups,
            patch=self.patch,
            pool=self.pool,
            temperature=self.temperature,
            distance=self.distance,
        )
