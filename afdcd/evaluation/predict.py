"""Predictions of a model: whole images or windows, over scales and mirror images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from afdcd.data.labels import DataError
from afdcd.evaluation.multiscale import multiscale_logits
from afdcd.evaluation.settings import InferenceSettings
from afdcd.evaluation.sliding import window_logits


def predict(
    settings: InferenceSettings, model: nn.Module, batch: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The model's outputs at the records' size, over scales, mirror images and windows.

    Raises:
        ValueError: settings that the model doesn't take.
        DataError: an image is too small for the scales.
    """
    if settings.plain:
        return model(batch)
    backbone: Any = getattr(model, "backbone", None)
    head: Any = getattr(model, "sem_seg_head", None)
    whole: Any = getattr(model, "normalized_logits", None)  # of other people's models
    if whole is None and not hasattr(head, "layers"):
        raise ValueError(
            "TEST.SCALES, TEST.FLIP and TEST.WINDOW take a SemanticSegmentor; got "
            f"{type(model).__name__}"
        )
    if (step := getattr(backbone, "size_divisibility", 0)) > 1:
        raise ValueError(
            "TEST.SCALES, TEST.FLIP and TEST.WINDOW don't pad images, and "
            f"{type(backbone).__name__} takes multiples of {step} pixels: leave them off"
        )

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        return head.layers(backbone(x)) if whole is None else whole(x)

    outputs_of = _windowed(settings, logits_of) if settings.window else logits_of
    outputs = []
    for item in batch:
        if problem := settings.size_problem(*item["image"].shape[-2:]):
            raise DataError(": ".join(filter(None, [item.get("file_name", ""), problem])))
        image = (item["image"].to(model.device) - model.pixel_mean) / model.pixel_std
        dense = multiscale_logits(
            outputs_of, image[None], scales=settings.scales, flip=settings.flip
        )
        size = (item["height"], item["width"])
        if tuple(dense.shape[-2:]) != size:
            dense = nn.functional.interpolate(
                dense, size=size, mode="bilinear", align_corners=False
            )
        outputs.append({"sem_seg": dense[0]})
    return outputs


def _windowed(
    settings: InferenceSettings, outputs_of: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    window = (settings.window[0], settings.window[1])
    return lambda x: window_logits(outputs_of, x, window=window, stride=settings.steps)
