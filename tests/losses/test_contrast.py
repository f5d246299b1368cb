"""patch_contrast: hand-worked numbers, a naive loop, properties, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afdcd.losses import patch_contrast


def naive_contrast(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    kind: str,
    groups: int,
    patch: tuple[int, int],
    pool: int,
    temperature: float,
    distance: str,
) -> float:
    """The definition, one token at a time."""
    if pool > 1:
        student = torch.nn.functional.max_pool2d(student, pool)
        teacher = torch.nn.functional.max_pool2d(teacher, pool)
    if kind == "spatial":
        groups = 1
    if kind == "channel":
        patch = (1, 1)
    n, c, height, width = student.shape
    h, w = patch
    size = c // groups

    def far(a: torch.Tensor, b: torch.Tensor) -> float:
        if distance == "l1":
            return (a - b).abs().sum().item()
        if distance == "l2":
            return (a - b).square().sum().sqrt().item()
        return 1 - torch.nn.functional.cosine_similarity(a, b, dim=0).item()

    total = 0.0
    for image in range(n):
        for top in range(0, height - h + 1, h):
            for left in range(0, width - w + 1, w):
                places = [
                    (y, x, g)
                    for y in range(top, top + h)
                    for x in range(left, left + w)
                    for g in range(groups)
                ]
                for y, x, g in places:
                    anchor = student[image, g * size : (g + 1) * size, y, x]
                    scores = []
                    for v, u, m in places:
                        same_place = (v, u, m) == (y, x, g)
                        if kind == "omni" and m == g and not same_place:
                            continue
                        token = teacher[image, m * size : (m + 1) * size, v, u]
                        score = -far(anchor, token) / temperature
                        scores.append(score)
                        if same_place:
                            positive = score
                    highest = max(scores)
                    log_sum = highest + math.log(sum(math.exp(s - highest) for s in scores))
                    total += log_sum - positive
    covered = (height // h * h) * (width // w * w)
    return total / covered / n


@pytest.mark.parametrize("kind", ["omni", "omni_all", "spatial", "channel"])
@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("pool", [0, 2])
def test_against_naive_loop(kind: str, distance: str, pool: int):
    generator = torch.Generator().manual_seed(3)
    shape = (2, 6, 9, 7)  # nothing divides: 9x7 (or 4x3 pooled) by patches of 2x3
    student = torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = torch.randn(shape, generator=generator, dtype=torch.float64)
    options = {
        "kind": kind,
        "groups": 3,
        "patch": (2, 3),
        "pool": pool,
        "temperature": 0.5,
        "distance": distance,
    }
    expected = naive_contrast(student, teacher, **options)
    assert patch_contrast(student, teacher, **options).item() == pytest.approx(expected, rel=1e-10)


def test_worked_by_hand():
    """One position, two groups of one channel: student (0, 3), teacher (1, 3), temperature 1.

    Anchor 0: positive |0 - 1| = 1, negative |0 - 3| = 3: -log(e^-1 / (e^-1 + e^-3)).
    Anchor 1: positive |3 - 3| = 0, negative |3 - 1| = 2: -log(e^0 / (e^0 + e^-2)).
    Both are log(1 + e^-2).
    """
    student = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    teacher = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    for kind in ("omni", "omni_all", "channel"):
        loss = patch_contrast(
            student, teacher, kind=kind, groups=2, patch=(1, 1), pool=0, temperature=1.0
        )
        assert loss.item() == pytest.approx(2 * math.log(1 + math.exp(-2)))


def test_spatial_worked_by_hand():
    """Two positions, student (0, 2), teacher (0, 1): anchor 0 has distances 0 and 1, anchor 1
    has 1 (positive) and 2. Averaged over the two positions."""
    student = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    teacher = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    loss = patch_contrast(student, teacher, kind="spatial", patch=(1, 2), pool=0, temperature=1.0)
    each = math.log(1 + math.exp(-1))
    assert loss.item() == pytest.approx((each + each) / 2)


def test_omni_all_counts_same_group_negatives_too():
    student, teacher = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    options = {"groups": 4, "patch": (2, 2), "pool": 0, "temperature": 1.0}
    omni = patch_contrast(student, teacher, kind="omni", **options)
    both = patch_contrast(student, teacher, kind="omni_all", **options)
    assert both > omni


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    groups=st.sampled_from([2, 4]),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    seed=st.integers(0, 100),
)
def test_properties(batch: int, groups: int, height: int, width: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 8, height, width)
    student = torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = torch.randn(shape, generator=generator, dtype=torch.float64)
    options = {"groups": groups, "patch": (2, 2), "pool": 0, "temperature": 1.0}

    loss = patch_contrast(student, teacher, **options)
    assert loss >= 0
    # An InfoNCE over k candidates with equal scores is log k: the teacher's own tokens do better.
    candidates = 1 + 4 * (groups - 1)
    assert patch_contrast(teacher, teacher, **options) <= groups * math.log(candidates)
    # The batch is averaged over: repeating it changes nothing.
    torch.testing.assert_close(
        patch_contrast(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), **options), loss
    )
    # "mean" is per token, "published" per position.
    torch.testing.assert_close(
        patch_contrast(student, teacher, reduction="mean", **options) * groups, loss
    )
    # What the patch grid can't cover doesn't matter.
    rows, cols = height // 2 * 2, width // 2 * 2
    torch.testing.assert_close(
        patch_contrast(student[:, :, :rows, :cols], teacher[:, :, :rows, :cols], **options), loss
    )


def test_gradient_reaches_the_student_only():
    student = torch.randn(1, 32, 16, 16, requires_grad=True)
    teacher = torch.randn(1, 32, 16, 16, requires_grad=True)
    patch_contrast(student, teacher).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("kind", ["omni", "omni_all", "spatial", "channel"])
@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_gradcheck(kind: str, distance: str):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 4, 2, 2, generator=generator, dtype=torch.float64)
    teacher = torch.randn(1, 4, 2, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: patch_contrast(
            s,
            teacher,
            kind=kind,
            groups=2,
            patch=(2, 2),
            pool=0,
            distance=distance,
            temperature=1.0,
        ),
        student.requires_grad_(),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype):
    student = (3 * torch.randn(1, 2048, 16, 16)).to(dtype)
    teacher = (3 * torch.randn(1, 2048, 16, 16)).to(dtype)
    loss = patch_contrast(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, patch_contrast(student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss, patch_contrast(student, teacher))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "omnia"}, "kind must be one of omni, omni_all"),
        ({"distance": "L1"}, "distance must be one of l1, l2, cosine"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"groups": 1}, "one group leaves none: use groups of 2 or more, or kind 'spatial'"),
        ({"groups": 0}, "groups must be at least 1"),
        ({"groups": 5}, r"5 groups for 32 channels. These fit: 2, 4, 8"),
        ({"patch": (0, 4)}, "patch must be"),
        ({"pool": -1}, "pool must be 0"),
        ({"kind": "spatial", "patch": (1, 1)}, "1x1 patch leaves none"),
        ({"pool": 8}, r"16x16, pooled by 8 to 2x2, holds no patch of 4x4: use a smaller pool"),
        ({"reduction": "sum"}, "reduction must be one of published, mean"),
    ],
)
def test_refusals_say_what_to_change(options: dict, message: str):
    features = torch.zeros(1, 32, 16, 16)
    with pytest.raises(ValueError, match=message):
        patch_contrast(features, features, **options)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"student \(1, 8, 16, 16\) and teacher \(1, 16, 16, 16\)"):
        patch_contrast(torch.zeros(1, 8, 16, 16), torch.zeros(1, 16, 16, 16))
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        patch_contrast(torch.zeros(8, 16, 16), torch.zeros(8, 16, 16))
