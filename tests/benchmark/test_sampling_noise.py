"""The variance that sampling adds, beside one written out."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from afdcd.benchmark.sampling import sampling_noise
from afdcd.config import embedded_config
from afdcd.distill import Distiller, build_distiller
from afdcd.engine.settings import PrecisionSettings
from afdcd.models import build_segmentor

from helpers.loss_settings import SMALL, give_losses

pytestmark = pytest.mark.slow

CLASSES = 3


PRECISION = PrecisionSettings()


def config(loss: str = "afdcd"):
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    return give_losses(cfg, **{loss: SMALL if loss == "afdcd" else {}})


def build(cfg) -> Distiller:
    torch.manual_seed(0)
    options = {"num_classes": CLASSES, "hidden_channels": 8}
    student = build_segmentor(backbone="mobilenetv2", width_mult=0.25, **options)
    return build_distiller(cfg, student, build_segmentor("pspnet", "resnet18", **options))


def batch(seed: int) -> list[dict]:
    """Two images, of four patches each."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8),
            "sem_seg": torch.randint(0, CLASSES, (64, 64), generator=generator),
        }
        for _ in range(2)
    ]


def gradient(model: Distiller, step: int, share: float) -> torch.Tensor:
    """Of align and projector, in a step by hand."""
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    twin.distiller.set_extra_state({"steps": step, "seed": 0})
    loss = twin.distiller.get_submodule("afdcd")
    loss.settings = dataclasses.replace(loss.settings, sample=share)
    sum(twin(batch(step)).values()).backward()
    return torch.cat([p.grad.flatten() for p in twin.distiller.parameters()]).double()


def test_variances():
    """Half of the patches; and nearly all, which is all, and adds nothing."""
    cfg = config()
    model = build(cfg)
    before = model.distiller.get_extra_state()
    rows = sampling_noise(PRECISION, model, [batch(1), batch(2)], [0.5, 0.99])
    assert model.distiller.get_extra_state() == before

    whole, some = ([gradient(model, step, share) for step in (1, 2)] for share in (1.0, 0.5))
    between = (whole[0] - whole[1]).square().sum().item() / 2
    added = sum((s - w).square().sum().item() for s, w in zip(some, whole, strict=True)) / 2
    row = rows[1]
    assert row["gradient of"] == "align and projector"
    assert row["norm"] == pytest.approx(((whole[0] + whole[1]) / 2).norm().item(), rel=1e-4)
    assert row["deviation"] == pytest.approx(between**0.5, rel=1e-4)
    assert row["variance, 0.5"] == pytest.approx(1 + added / between, rel=1e-3)
    assert row["variance, 0.99"] == pytest.approx(1, abs=1e-4)


def test_refusals():
    cfg = config()
    with pytest.raises(ValueError, match="at least two batches; got 1"):
        sampling_noise(PRECISION, build(cfg), [batch(0)], [0.5])
    cfg = config("logit_kd")
    with pytest.raises(ValueError, match="no Af-DCD loss"):
        sampling_noise(PRECISION, build(cfg), [batch(0), batch(1)], [0.5])
