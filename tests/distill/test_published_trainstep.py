"""Three optimisation steps against the published networks, losses and schedule (trainstep.npz).

Tolerances: float64 1e-6; float32 1e-4, 1e-3 and 2e-2 for the three steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import afdcd.losses.afdcd.loss
from afdcd.distill import Distiller, build_distiller
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer, set_lr
from afdcd.engine.schedule import learning_rate
from afdcd.models import build_segmentor, load_weights
from afdcd.models.weights.names import recognise
from afdcd.models.weights.rules import translate
from afdcd.utils.memory_format import format_module

from .settings import solver_settings
from helpers import reference
from helpers.loss_settings import give_losses

VECTORS = reference.load("trainstep")
MANIFEST = reference.manifest("trainstep")
CLASSES = MANIFEST["num_class"]
PUBLISHED_LOSS_NAMES = {"projector.0.": "projetor.0.", "projector.2.": "projetor.2."}
UNNORMALIZED = {"pixel_mean": (0.0, 0.0, 0.0)}


def published_loss_name(name: str) -> str:
    for ours, theirs in PUBLISHED_LOSS_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def published_config() -> Any:
    """A config with the reference's losses and solver."""
    cfg = solver_settings(
        BASE_LR=MANIFEST["lr"],
        MAX_ITER=MANIFEST["max_iter"],
        MOMENTUM=MANIFEST["momentum"],
        WEIGHT_DECAY=MANIFEST["weight_decay"],
        WEIGHT_DECAY_NORM=MANIFEST["weight_decay"],
    )
    cfg.MODEL.META_ARCHITECTURE = "Distiller"
    cfg.INPUT.SCALE_CROP.SIZE = [MANIFEST["size"]] * 2
    predictor, res5 = "sem_seg_head.predictor", "backbone.res5"
    return give_losses(
        cfg,
        logits={
            "NAME": "logit_kd",
            "TAPS": [[predictor, predictor]],
            "WEIGHT": MANIFEST["lambda_kd"],
            "TEMPERATURE": MANIFEST["kd_temperature"],
        },
        context={
            "NAME": "afdcd",
            "TAPS": [[res5, res5]],
            "RECONSTRUCTION_WEIGHT": MANIFEST["lambda_fd"],
            "CONTRAST_WEIGHT": MANIFEST["lambda_ctr"],
        },
    )


def published_distiller(cfg: Any) -> Distiller:
    """As training builds it, with the reference's weights."""
    student = build_segmentor("deeplabv3", "resnet18", CLASSES, **UNNORMALIZED)
    load_weights(student, reference.published_state_dict("deeplabv3_resnet18", "student/"))
    teacher = build_segmentor("deeplabv3", "mobilenetv2", CLASSES, **UNNORMALIZED)
    load_weights(teacher, reference.published_state_dict("deeplab_mobile_mobilenetv2", "teacher/"))
    model = build_distiller(cfg, student, teacher)
    with torch.no_grad():
        for name, parameter in model.distiller.context.named_parameters():
            values = reference.weight(
                published_loss_name(name), tuple(parameter.shape), prefix="loss/"
            )
            parameter.copy_(torch.from_numpy(values))
    return format_module(model)


def batch(step: int, dtype: torch.dtype) -> list[dict]:
    size, count = MANIFEST["size"], MANIFEST["batch"]
    images = reference.normal(f"step{step}/image", (count, 3, size, size))
    labels = reference.integers(f"step{step}/labels", (count, size, size), CLASSES)
    labels[reference.uniform(f"step{step}/drop", labels.shape) < 0.1] = 255
    return [
        {"image": torch.from_numpy(image).to(dtype), "sem_seg": torch.from_numpy(label)}
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.fixture
def threads(request):
    """The number of threads decides how float32 sums round, and three steps amplify that."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_three_steps(dtype: torch.dtype, monkeypatch, threads):
    cfg = published_config()
    model = published_distiller(cfg).to(dtype).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), model)
    exact = dtype == torch.float64
    # The reference's processor had AVX-512. Others sum in another order, and the second step
    # amplifies that in float32 beyond what it is compared to; in float64 all three agree anywhere.
    same_sums = exact or torch.backends.cpu.get_cpu_capability() == "AVX512"
    for step in (1, 2, 3) if same_sums else (1,):
        tolerance = 1e-6 if exact else (1e-4, 1e-3, 2e-2)[step - 1]
        noise = reference.uniform(f"step{step}/noise", (MANIFEST["batch"], 1, 16, 16))
        mask = torch.from_numpy(noise <= 0.25).to(dtype)
        monkeypatch.setattr(afdcd.losses.afdcd.loss, "make_mask", lambda *a, m=mask, **k: m)

        lr = learning_rate(SettingsReader(cfg).schedule(), step - 1)
        set_lr(optimizer, lr)
        losses = model(batch(step, dtype))
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        terms = {
            "task": losses["loss_sem_seg"] + losses["loss_sem_seg_aux"],
            "kd": losses["loss_logit_kd"],
            "fd": losses["loss_reconstruction"],
            "ctr": losses["loss_contrast"],
            "total": total,
            "lr": torch.tensor(lr, dtype=torch.float64),
            "student_grad_norm": nn.utils.clip_grad_norm_(model.student.parameters(), 1e9),
            "loss_module_grad_norm_before_clip": nn.utils.clip_grad_norm_(
                model.distiller.parameters(), MANIFEST["max_norm"]
            ),
        }
        for name, value in terms.items():
            expected = VECTORS[f"step{step}/{name}"]
            np.testing.assert_allclose(
                value.item(), expected, rtol=tolerance, err_msg=f"step{step}/{name}"
            )
        optimizer.step()
    if same_sums:
        compare_weights(model, 1e-6 if exact else 5e-2)


def compare_weights(model: Distiller, tolerance: float) -> None:
    student = model.student.state_dict()
    loss = {published_loss_name(n): p for n, p in model.distiller.context.state_dict().items()}
    published = [key.split("/") for key in VECTORS if key.startswith("after3/")]
    naming = recognise([parts[2] for parts in published if parts[1] == "student"])
    compared = set()
    for _, part, name, kind in published:
        tensor = loss[name] if part == "loss" else student[translate(name, naming)]
        expected = VECTORS[f"after3/{part}/{name}/{kind}"]
        if kind == "l2":
            got = tensor.double().norm().item()
        else:
            got = reference.strided_sample(tensor, 16)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=name)
        compared.add((part, name))
    assert len({name for part, name in compared if part == "loss"}) == 6
    assert len({name for part, name in compared if part == "student"}) > 100
