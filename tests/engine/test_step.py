"""A step in parts against a step on the whole batch; losses read late; batches used again."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from loss_settings import SMALL, give_losses
from torch import nn

from afdcd.checks.preflight import batch_problems
from afdcd.config import embedded_config
from afdcd.data.stream import Echo
from afdcd.distill import Distiller, build_distiller
from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.loss_log import LossLog, mean_losses
from afdcd.engine.step import accumulate
from afdcd.engine.throughput import Throughput
from afdcd.losses.afdcd.patches import draw_blocks
from afdcd.models import build_segmentor

CLASSES = 3
CPU = torch.device("cpu")


def distiller(sample: float = 1.0) -> Distiller:
    """In float64, its BatchNorm frozen, without dropout."""
    torch.manual_seed(0)
    options = {"num_classes": CLASSES, "hidden_channels": 8}
    student = build_segmentor(backbone="mobilenetv2", width_mult=0.25, **options)
    teacher = build_segmentor("pspnet", "resnet18", aux_weight=0, **options)
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, logit_kd={}, afdcd={**SMALL, "SAMPLE": sample})
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


@pytest.mark.parametrize("sample", [1.0, 0.25])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_whole_batchs_gradients(parts: int, sample: float):
    model = distiller(sample)
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


def test_blocks_of_parts_are_those_of_the_whole():
    def draw(images: int, part: tuple[int, int]):
        generator = torch.Generator().manual_seed(3)
        return draw_blocks((images, 8, 12), (4, 4), share=0.3, generator=generator, part=part)

    whole, parts = draw(4, (0, 1)), [draw(2, (0, 2)), draw(2, (1, 2))]
    assert [p.factor for p in parts] == [whole.factor] * 2
    images = torch.cat([parts[0].image, parts[1].image + 2])
    assert torch.equal(images, whole.image)
    assert torch.equal(torch.cat([p.row for p in parts]), whole.row)
    assert torch.equal(torch.cat([p.column for p in parts]), whole.column)


def test_a_part_without_blocks_has_zero_gradients():
    model = distiller(sample=0.01)  # one block, in one of the parts
    expected = step(copy.deepcopy(model), batch(4), 1)[1]
    gradients = step(model, batch(4), 4)[1]
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * theirs.abs().max().item())


# --- losses -----------------------------------------------------------------------------------


def test_losses_are_kept_until_read():
    log = LossLog(lambda: None)
    for number in (1.0, 2.0):
        log.note(int(number), {"loss_a": torch.tensor(number), "loss_b": torch.tensor(3.0)})
    steps = log.read()
    assert [step.iteration for step in steps] == [1, 2]
    assert steps[1].values == {"loss_a": 2.0, "loss_b": 3.0, "total_loss": 5.0}
    assert mean_losses(steps) == {"loss_a": 1.5, "loss_b": 3.0, "total_loss": 4.5}
    assert log.read() == []


def test_a_loss_that_is_not_finite_is_named_with_its_iteration(tmp_path):
    log = LossLog(lambda: tmp_path / "model_0000002.pth")
    log.note(6, {"loss_a": torch.tensor(1.0)})
    message = r"^loss_a is not finite at iteration 7 \(loss_a = nan.*model_0000002.pth is from"
    with pytest.raises(NonFiniteLoss, match=message):
        log.note(7, {"loss_a": torch.tensor(float("nan"))})


def test_on_another_device_reading_finds_it(monkeypatch):
    log = LossLog(lambda: None)
    values = torch.tensor([1.0, float("inf"), float("inf")])
    log._pending = [(4, ["loss_a", "loss_b", "total_loss"], values)]
    with pytest.raises(NonFiniteLoss, match="loss_b is not finite at iteration 4"):
        log.read()


def test_throughput():
    window = Throughput()
    window.add(steps=1, waited=1.0, seconds=2.0)
    window.add(steps=1, waited=0.0, seconds=2.0)
    figures = window.figures(images=8)
    assert figures == {"data_time": 0.5, "data_share": 0.25, "images_per_second": 4.0}


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(6))
def test_echo_goes_on_where_it_was(first: int):
    every = [batch for batch in range(4) for _ in range(3)]
    loader = ([{"number": number}] for number in range(first // 3, 4))
    given = [batch[0]["number"] for batch in Echo(loader, times=3, first=first)]
    assert given == every[first:]


@pytest.mark.parametrize(
    ("images", "parts", "echo", "norm", "processes", "message"),
    [
        (8, 3, 1, "BN", 1, "IMS_PER_BATCH 8 can't be shared out evenly to 3 parts"),
        (16, 2, 1, "BN", 3, r"evenly to 2 parts \(SOLVER.ACCUMULATE\) in 3 processes"),
        (8, 8, 1, "BN", 1, "at least 16, since ASPPHead normalizes.*in each part.*; got 8"),
        (2, 1, 1, "BN", 2, "at least 4, since ASPPHead"),
        (1, 1, 1, "BN", 1, "at least 2, since ASPPHead.*takes two images; got 1"),
        (8, 0, 1, "BN", 1, "ACCUMULATE must be at least 1; got 0"),
        (8, 1, 0, "BN", 1, "ECHO must be at least 1; got 0"),
        (8, 8, 1, "FrozenBN", 1, ""),
        (8, 4, 2, "BN", 1, ""),
        (8, 2, 1, "BN", 2, ""),
    ],
)
def test_preflight(images, parts, echo, norm, processes, message):
    cfg = embedded_config()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE, cfg.DATALOADER.ECHO = images, parts, echo
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NORM = "ASPPHead", norm
    problems = batch_problems(cfg, processes)
    assert len(problems) == bool(message)
    if message:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(problems[0])


def test_synchronised_statistics_take_two_images_of_all_processes():
    cfg = embedded_config()
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NORM = "PSPHead", "BN"
    assert batch_problems(cfg, 2)
    assert not batch_problems(cfg, 2, synchronised=True)
