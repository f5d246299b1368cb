"""The learning rate and the optimizer's groups."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from afdcd.config import embedded_config
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer, set_lr
from afdcd.engine.schedule import learning_rate
from afdcd.models import build_segmentor

from helpers import reference

VECTORS = reference.load("schedule")
RUNS = sorted({key.split("/")[0] for key in VECTORS})


@pytest.mark.parametrize("run", RUNS)
def test_published_schedule(run: str):
    cfg = embedded_config()
    cfg.SOLVER.BASE_LR = float(VECTORS[f"{run}/base_lr"])
    cfg.SOLVER.MAX_ITER = int(VECTORS[f"{run}/max_iter"])
    cfg.SOLVER.POLY_LR_POWER = float(VECTORS[f"{run}/power"])
    cfg.SOLVER.WARMUP_ITERS = 0
    rates = [
        learning_rate(SettingsReader(cfg).schedule(), int(i)) for i in VECTORS[f"{run}/iteration"]
    ]
    np.testing.assert_allclose(rates, VECTORS[f"{run}/lr"], rtol=1e-12)


def test_warmup_and_ending_worked_by_hand():
    cfg = embedded_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.POLY_LR_POWER = 1.0, 100, 1.0
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 10, 0.5
    assert learning_rate(SettingsReader(cfg).schedule(), 0) == pytest.approx(0.5)
    assert learning_rate(SettingsReader(cfg).schedule(), 5) == pytest.approx(0.75 * 0.95)
    assert learning_rate(SettingsReader(cfg).schedule(), 10) == pytest.approx(0.9)
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.2
    assert learning_rate(SettingsReader(cfg).schedule(), 95) == pytest.approx(0.2)


def test_groups_follow_detectron2s_keys():
    cfg = embedded_config()
    solver = cfg.SOLVER
    solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.WEIGHT_DECAY_BIAS = 0.1, 0.2, 0.3
    solver.BIAS_LR_FACTOR, solver.BASE_LR = 2.0, 1.0
    model = build_segmentor("deeplabv3", "mobilenetv2", 3)
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
    set_lr(optimizer, 0.5)
    settings = {}
    for group in optimizer.param_groups:
        for name in group["param_names"]:
            settings[name] = group["weight_decay"], group["lr"]
    assert sorted(settings) == sorted(name for name, _ in model.named_parameters())
    assert settings["backbone.stem.conv.weight"] == (0.1, 0.5)
    assert settings["backbone.stem.conv.norm.weight"] == (0.2, 0.5)
    assert settings["backbone.stem.conv.norm.bias"] == (0.2, 0.5)
    assert settings["sem_seg_head.predictor.bias"] == (0.3, 1.0)


def test_align_and_projector_have_a_factor_of_their_own():
    cfg = embedded_config()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.BIAS_LR_FACTOR = 1.0, 3.0
    cfg.MODEL.DISTILLER.LR_FACTOR = 2.0
    model = nn.ModuleDict({"student": nn.Linear(2, 2), "distiller": nn.Linear(2, 2)})
    for architecture, factor in (("Distiller", 2.0), ("SemanticSegmentor", 1.0)):
        cfg.MODEL.META_ARCHITECTURE = architecture
        optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
        set_lr(optimizer, 0.5)
        rates = {n: g["lr"] for g in optimizer.param_groups for n in g["param_names"]}
        assert rates == {
            "student.weight": 0.5,
            "student.bias": 1.5,
            "distiller.weight": 0.5 * factor,
            "distiller.bias": 1.5 * factor,
        }
