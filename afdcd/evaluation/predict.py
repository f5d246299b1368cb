"""Predictions of a model: whole images or windows, over scales and mirror images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from afdcd.evaluation.multiscale import multiscale_logits
from afdcd.evaluation.sliding import window_logits


def predict(cfg: Any, model: nn.Module, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The model's outputs at the records' size, as ``TEST`` says.

    Over ``TEST.SCALES`` and ``TEST.FLIP``, each image whole or in windows of ``TEST.WINDOW``.

    Raises:
        ValueError: settings that make no sense, or that the model doesn't take.
    """
    scales, flip, window = list(cfg.TEST.SCALES), cfg.TEST.FLIP, list(cfg.TEST.WINDOW)
    if scales == [1.0] and not flip and not window:
        return model(batch)
    backbone: Any = getattr(model, "backbone", None)
    head: Any = getattr(model, "sem_seg_head", None)
    if not hasattr(head, "layers"):
        raise ValueError(
            "TEST.SCALES, TEST.FLIP and TEST.WINDOW take a SemanticSegmentor; got "
            f"{type(model).__name__}"
        )
    if (step := getattr(backbone, "size_divisibility", 0)) > 1:
        raise ValueError(
            "TEST.SCALES, TEST.FLIP and TEST.WINDOW don't pad images, and "
            f"{type(backbone).__name__} takes multiples of {step} pixels: leave them off"
        )
    logits_of = _windowed(cfg, lambda x: head.layers(backbone(x)))
    outputs = []
    for item in batch:
        image = (item["image"].to(model.device) - model.pixel_mean) / model.pixel_std
        logits = multiscale_logits(logits_of, image[None], scales=scales, flip=flip)
        size = (item["height"], item["width"])
        if tuple(logits.shape[-2:]) != size:
            logits = nn.functional.interpolate(
                logits, size=size, mode="bilinear", align_corners=False
            )
        outputs.append({"sem_seg": logits[0]})
    return outputs


def _windowed(
    cfg: Any, logits_of: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    window, stride = list(cfg.TEST.WINDOW), list(cfg.TEST.WINDOW_STRIDE)
    if not window:
        return logits_of
    if len(window) != 2 or len(stride) not in (0, 2):
        raise ValueError(
            "TEST.WINDOW is [height, width], TEST.WINDOW_STRIDE [rows, columns] or []; got "
            f"{window} and {stride}"
        )
    size = (window[0], window[1])
    step = (stride[0], stride[1]) if stride else (-(-size[0] * 2 // 3), -(-size[1] * 2 // 3))
    return lambda x: window_logits(logits_of, x, window=size, stride=step)
