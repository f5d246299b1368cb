"""Predictions of a model, over scales and mirror images where ``TEST`` says so."""

from __future__ import annotations

from typing import Any

from torch import nn

from afdcd.evaluation.multiscale import multiscale_logits


def predict(cfg: Any, model: nn.Module, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The model's outputs at the records' size, over ``TEST.SCALES`` and ``TEST.FLIP``."""
    scales, flip = list(cfg.TEST.SCALES), cfg.TEST.FLIP
    if scales == [1.0] and not flip:
        return model(batch)
    backbone: Any = getattr(model, "backbone", None)
    head: Any = getattr(model, "sem_seg_head", None)
    if not hasattr(head, "layers"):
        raise ValueError(
            f"TEST.SCALES and TEST.FLIP take a SemanticSegmentor; got {type(model).__name__}"
        )
    outputs = []
    for item in batch:
        image = (item["image"].to(model.device) - model.pixel_mean) / model.pixel_std
        logits = multiscale_logits(
            lambda x: head.layers(backbone(x)),
            image[None],
            scales=scales,
            flip=flip,
        )
        size = (item["height"], item["width"])
        if tuple(logits.shape[-2:]) != size:
            logits = nn.functional.interpolate(
                logits, size=size, mode="bilinear", align_corners=False
            )
        outputs.append({"sem_seg": logits[0]})
    return outputs
