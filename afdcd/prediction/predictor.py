"""A network that gives the labels of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from afdcd.data.mapper import resize_short_side
from afdcd.engine.precision import autocast
from afdcd.evaluation import predict


class Predictor:
    """Labels of images.

    Args:
        cfg: the model's config.
        model: on its device, in evaluation mode.
    """

    def __init__(self, cfg: Any, model: nn.Module) -> None:
        self.cfg, self.model = cfg, model
        self.device = next(model.parameters()).device

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Classes int64 [H, W] of BGR images [H, W, 3] of one size."""
        batch = []
        for image in images:
            height, width = image.shape[:2]
            small, _ = resize_short_side(image, None, self.cfg.INPUT.MIN_SIZE_TEST)
            if self.cfg.INPUT.FORMAT == "RGB":
                small = small[:, :, ::-1]
            tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
            batch.append({"image": tensor, "height": height, "width": width})
        with torch.no_grad(), autocast(self.cfg, self.device):
            outputs = predict(self.cfg, self.model, batch)
        return [output["sem_seg"].argmax(0).cpu().numpy() for output in outputs]
