"""The frozen teacher's fast form against the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from afdcd.distill import FrozenTeacher
from afdcd.distill.folding import fold_norms
from afdcd.models import build_segmentor

PATHS = ["backbone.res4", "backbone.res5", "sem_seg_head.predictor"]


def trained_teacher() -> nn.Module:
    """With statistics and scales that are not those of a fresh BatchNorm."""
    torch.manual_seed(0)
    model = build_segmentor("deeplabv3", "resnet18", 5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 1.2)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 3)
    return model


def inputs() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 65, 97), generator=generator, dtype=torch.uint8)
    return [{"image": image}, {"image": image.flip(2)}]


def features(dtype: torch.dtype | None = None, prepare: bool = True) -> dict[str, torch.Tensor]:
    return FrozenTeacher(trained_teacher(), dtype=dtype, prepare=prepare).features(inputs(), PATHS)


# The errors that FrozenTeacher states: of the L2 norm.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "error"), [(None, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_within_the_stated_error(dtype: torch.dtype | None, error: float):
    plain, fast = features(prepare=False), features(dtype)
    for path in PATHS:
        assert fast[path].dtype == (dtype or torch.float32)
        difference = (fast[path].float() - plain[path]).norm() / plain[path].norm()
        assert difference < error, path


def test_folding_is_exact_in_float64():
    plain = trained_teacher().double().eval()
    folded = copy.deepcopy(plain)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert fold_norms(folded) == count and fold_norms(folded) == 0
    for mine, theirs in zip(folded(inputs()), plain(inputs()), strict=True):
        torch.testing.assert_close(mine["sem_seg"], theirs["sem_seg"], rtol=1e-9, atol=1e-9)


def test_follows_autocast_unless_told():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert features()["backbone.res5"].dtype == torch.bfloat16
        assert features(torch.float32)["backbone.res5"].dtype == torch.float32


def test_is_left_alone_until_the_first_features():
    model = trained_teacher()
    names = list(model.state_dict())
    teacher = FrozenTeacher(model, dtype=torch.bfloat16)
    assert list(model.state_dict()) == names
    teacher.features(inputs(), PATHS)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(w.dtype == torch.bfloat16 for w in weights)
    assert not any(p.requires_grad for p in model.parameters())
