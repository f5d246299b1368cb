"""How whole images are predicted, as a config describes it."""

from __future__ import annotations

from typing import Any

from afdcd.evaluation.settings import InferenceSettings


def inference_settings(cfg: Any) -> InferenceSettings:
    """From ``TEST``.

    Raises:
        SettingsError: everything in it that can't work.
    """
    test = cfg.TEST
    return InferenceSettings(
        scales=tuple(test.SCALES),
        flip=test.FLIP,
        window=tuple(test.WINDOW),
        stride=tuple(test.WINDOW_STRIDE),
    )
