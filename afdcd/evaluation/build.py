"""How whole images are predicted, as a config describes it."""

from __future__ import annotations

from typing import Any

from afdcd.evaluation.settings import InferenceSettings


def inference_settings(cfg: Any) -> InferenceSettings:
    """The settings in ``TEST``.

    Raises:
        SettingsError: settings that can't work; lists all of them.
    """
    test = cfg.TEST
    return InferenceSettings(
        scales=tuple(test.SCALES),
        flip=test.FLIP,
        window=tuple(test.WINDOW),
        stride=tuple(test.WINDOW_STRIDE),
    )
