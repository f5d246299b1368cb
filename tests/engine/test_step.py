"""A step in parts against a step on the whole batch."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from afdcd.config import embedded_config
from afdcd.distill import Distiller, build_distiller
from afdcd.engine.step import accumulate
from afdcd.models import build_segmentor

from helpers.loss_settings import SMALL, give_losses

CLASSES = 3
CPU = torch.device("cpu")


def distiller() -> Distiller:
    """In float64, its BatchNorm frozen, without dropout."""
    torch.manual_seed(0)
    options = {"num_classes": CLASSES, "hidden_channels": 8}
    student = build_segmentor(backbone="mobilenetv2", width_mult=0.25, **options)
    teacher = build_segmentor("pspnet", "resnet18", aux_weight=0, **options)
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, logit_kd={}, afdcd=SMALL)
    model = build_distiller(cfg, student, teacher).double().train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)):
            module.eval()
    return model


def batch(count: int) -> list[dict]:
    """Every pixel labelled: the task's loss averages over labelled pixels, part by part."""
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": 255 * torch.rand(3, 64, 64, generator=generator, dtype=torch.float64),
            "sem_seg": torch.randint(0, CLASSES, (64, 64), generator=generator),
        }
        for _ in range(count)
    ]


def step(model: Distiller, items: list[dict], parts: int) -> tuple[dict, list[torch.Tensor]]:
    model.zero_grad()
    losses = accumulate(
        model,
        items,
        parts=parts,
        precision=nullcontext,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=CPU,
    )
    return losses, [p.grad.clone() for p in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_whole_batchs_gradients(parts: int):
    model = distiller()
    twin = copy.deepcopy(model)
    for _ in range(2):  # the second step has other masks
        whole, expected = step(model, batch(4), 1)
        losses, gradients = step(twin, batch(4), parts)
        assert losses.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=0)  # in float32
        for mine, theirs in zip(gradients, expected, strict=True):
            scale = theirs.abs().max().item()
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * scale)
    assert model.distiller.get_extra_state() == twin.distiller.get_extra_state()


def test_parts_must_divide():
    with pytest.raises(ValueError, match="3 images can't be cut into 2 equal parts"):
        step(distiller(), batch(3), 2)
