"""On a CPU nothing of a training step is computed in channels_last (see afdcd.utils.memory_format).

There PyTorch's backward pass of a narrow strided 1x1 convolution writes beyond its memory, and
BatchNorm's running variance is imprecise.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from afdcd.config import embedded_config
from afdcd.distill import Distiller, build_distiller
from afdcd.models import build_segmentor

from helpers.loss_settings import SMALL, give_losses

CLASSES = 4
LOSSES = {
    "afdcd": SMALL,
    "sampled": {"NAME": "afdcd", **SMALL, "SAMPLE": 0.5},
    "enhanced": {"NAME": "afdcd", **SMALL, "PROJECTOR": "enhanced", "RECOMPUTE": True},
    "dense": {"NAME": "afdcd", **SMALL, "MASKED_CONV": "never"},
    "logit_kd": {},
    "feature_kd": {},
    "cwd": {},
    "dist": {},
}


class Watch(TorchDispatchMode):
    """Notes every convolution and batch normalization, forward and backward, that is given a map or
    weight that isn't contiguous.

    Attributes:
        seen: operations, by name, that were looked at.
        odd: (operation, shape, strides) of what isn't contiguous.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        self.odd: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if "convolution" in name or "batch_norm" in name:
            self.seen[name] = self.seen.get(name, 0) + 1
            # A convolution's upstream gradient, its first, is brought into the others' format.
            given = args[1:] if name == "convolution_backward" else args
            for tensor in given:
                if isinstance(tensor, torch.Tensor) and tensor.dim() == 4:
                    n, c, h, w = tensor.shape
                    if n > 1 and tensor.stride() != (c * h * w, h * w, w, 1):
                        self.odd.append((name, (n, c, h, w), tensor.stride()))
        return function(*args, **(kwargs or {}))


def small_pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    student = build_segmentor(
        backbone="mobilenetv2", width_mult=0.25, num_classes=CLASSES, hidden_channels=8
    )
    teacher = build_segmentor("pspnet", "resnet18", CLASSES, hidden_channels=8, aux_weight=0)
    return student, teacher


def distiller(label: str, student: torch.nn.Module, teacher: torch.nn.Module) -> Distiller:
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, **{label: LOSSES[label]})
    return build_distiller(cfg, student, teacher)


def batch() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    size = 64, 72
    return [
        {
            "image": torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8),
            "sem_seg": torch.randint(0, CLASSES, size, generator=generator),
        }
        for _ in range(2)
    ]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "given in channels_last"])
@pytest.mark.parametrize("label", LOSSES)
def test_a_distilled_step(label: str, last: bool):
    student, teacher = small_pair()
    if last:
        for model in (student, teacher):
            model.to(memory_format=torch.channels_last)
    model = distiller(label, student, teacher).train()
    with Watch() as watch:
        sum(model(batch()).values()).backward()
    assert not watch.odd, watch.odd[:5]
    assert watch.seen["convolution"] > 50 and watch.seen["convolution_backward"] > 50
    assert any("batch_norm" in name for name in watch.seen)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 4:
            assert parameter.stride() == torch.empty(parameter.shape).stride(), name


def test_the_watch_sees_channels_last():
    conv = torch.nn.Conv2d(4, 8, 3)
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    with Watch() as watch:
        conv(x).sum().backward()
    assert {name for name, *_ in watch.odd} == {"convolution", "convolution_backward"}


def test_a_student_that_takes_its_own_format_only_is_left_alone():
    student, teacher = small_pair()
    student.to(memory_format=torch.channels_last)
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, feature_kd={})
    cfg.MODEL.DISTILLER.STUDENT = "PanopticFPN"
    strides = [p.stride() for p in student.parameters()]
    model = build_distiller(cfg, student, teacher).float()
    assert [p.stride() for p in model.student.parameters()] == strides
