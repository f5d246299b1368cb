"""Whether a model takes the settings of ``TEST`` that it will be scored with."""

from __future__ import annotations

import torch
from torch import nn

from afdcd.evaluation import predict
from afdcd.evaluation.settings import InferenceSettings
from afdcd.utils.problems import Problem

# Pixels of the blank image's sides.
SIDE = 64


def inference_problems(settings: InferenceSettings, model: nn.Module) -> list[str]:
    """What a model says to a blank image, predicted over the scales and windows of ``TEST``.

    Nothing is tried where whole images are predicted once. The model's weights, statistics and
    mode stay as they are.
    """
    if settings.plain:
        return []
    training = model.training
    model.eval()
    sample = {"image": torch.zeros(3, SIDE, SIDE), "height": SIDE, "width": SIDE}
    try:
        with torch.no_grad():
            predict(settings, model, [sample])
    except (ValueError, NotImplementedError) as error:
        return [Problem(str(error), "inference")]
    except (RuntimeError, TypeError, AttributeError) as error:
        text = str(error).splitlines()[0][:300]
        head = type(getattr(model, "sem_seg_head", model)).__name__
        keys = "TEST.SCALES, TEST.FLIP and TEST.WINDOW"
        return [Problem(f"{keys} can't be used with {head}: {text}", "inference")]
    finally:
        model.train(training)
    return []
