"""A network that gives predictions of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from afdcd.data import DataError
from afdcd.data.mapper import resize_short_side
from afdcd.engine.precision import autocast
from afdcd.engine.settings import EvaluationSettings
from afdcd.evaluation import predict
from afdcd.tasks import Task


class Predictor:
    """Predictions of images.

    Args:
        settings: the model's own.
        model: on its device, in evaluation mode.
        task: that the model has learnt.
    """

    def __init__(self, settings: EvaluationSettings, model: nn.Module, task: Task) -> None:
        self.settings, self.model, self.task = settings, model, task
        self.device = next(model.parameters()).device

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the task decodes, [H, W], of BGR images [H, W, 3] of one size.

        Raises:
            DataError: they are too small for ``TEST.SCALES``, or too large for the GPU's memory.
        """
        loading = self.settings.loading
        batch = []
        for image in images:
            height, width = image.shape[:2]
            small, _ = resize_short_side(image, None, loading.test_short_side)
            if loading.image_format == "RGB":
                small = small[:, :, ::-1]
            tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
            batch.append({"image": tensor, "height": height, "width": width})
        try:
            with torch.no_grad(), autocast(self.settings.precision, self.device):
                outputs = predict(self.settings.inference, self.model, batch)
        except torch.OutOfMemoryError as error:
            height, width = batch[0]["image"].shape[-2:]
            raise DataError(
                f"{len(batch)} at once of {height}x{width} pixels exceed the memory of "
                f"{self.device}: use a smaller --batch-size, TEST.WINDOW, or --num-gpus 0"
            ) from error
        return [self.task.decode(output) for output in outputs]
