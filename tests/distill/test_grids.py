"""Logits of two networks on one grid."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from afdcd.distill.grids import corners_on_corners, on_one_grid, resampled
from afdcd.losses import logit_kd
from afdcd.models import build_segmentor


def positions(count: int, corners: bool) -> torch.Tensor:
    """Where positions lie in an image of side 1."""
    n = torch.arange(count, dtype=torch.float64)
    return n / max(count - 1, 1) if corners else (n + 0.5) / count


def ramp(rows: int, columns: int, corners: bool) -> torch.Tensor:
    """[1, 2, rows, columns]: each position's place in the image."""
    y, x = positions(rows, corners), positions(columns, corners)
    return torch.stack([y[:, None].expand(-1, columns), x[None].expand(rows, -1)])[None]


@pytest.mark.parametrize(("was", "becomes"), list(product([False, True], repeat=2)))
def test_places_stay_where_they_are(was: bool, becomes: bool):
    """Of a map that says where it lies, interpolated values are the places asked for."""
    found = resampled(ramp(5, 8, was), (11, 16), was, becomes)
    wanted = ramp(11, 16, becomes)
    edges = ramp(5, 8, was)
    low, high = edges.amin((2, 3), keepdim=True), edges.amax((2, 3), keepdim=True)
    torch.testing.assert_close(found, wanted.clamp(low, high))


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_like_interpolate(height: int, width: int, side: int, corners: bool):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = F.interpolate(x, (side, side), mode="bilinear", align_corners=corners)
    torch.testing.assert_close(resampled(x, (side, side), corners, corners), expected)
    # By way of the other kind: the weights of the same positions.
    rows = torch.eye(height, dtype=torch.float64)
    assert torch.equal(resampled(rows[None, None], (height, height), corners, corners)[0, 0], rows)


def test_the_finer_of_the_two():
    coarse, fine = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 8)
    for corners in product([False, True], repeat=2):
        student, teacher = on_one_grid(coarse, fine, corners)
        assert student.shape == (1, 2, 6, 8) and teacher is fine
        teacher, student = on_one_grid(fine, coarse, corners)[::-1]
        assert teacher.shape == (1, 2, 6, 8) and student is fine
    same = on_one_grid(coarse, coarse + 1, (True, True))
    assert same[0] is coarse
    # Of the same size, but not of the same places.
    student, teacher = on_one_grid(coarse, coarse, (True, False))
    assert student is coarse and not torch.allclose(teacher, coarse)


def test_gradients_reach_the_student():
    student = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: on_one_grid(x, teacher, (True, False))[0], (student,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = on_one_grid(student.detach().bfloat16(), teacher.bfloat16(), (True, False))
    assert all(x.dtype == torch.float32 for x in found)


@pytest.mark.parametrize(
    ("architecture", "backbone", "expected"),
    [
        ("deeplabv3", "resnet18", True),
        ("pspnet", "resnet18", True),
        ("segformer", "mit_b0", False),
        ("lraspp", "mobilenetv3_small", False),
    ],
)
def test_heads_say_how_they_resize(architecture: str, backbone: str, expected: bool):
    width = {} if backbone in ("resnet18", "mit_b0") else {"width_mult": 0.25}
    model = build_segmentor(architecture, backbone, 3, **width).eval()
    assert corners_on_corners(model) is expected
    logits = torch.randn(1, 3, 4, 5)
    resized = model.sem_seg_head.resize(logits, (16, 20))
    same = F.interpolate(logits, (16, 20), mode="bilinear", align_corners=expected)
    torch.testing.assert_close(resized, same)
    assert not corners_on_corners(nn.Linear(1, 1))


def test_nearer_to_a_comparison_at_the_images_size():
    """The student's gradient, against that of both networks' logits at 96x96, resized by each head.

    A scene of random blobs; the student (24x24, without corners) sees it with noise, the teacher
    has 12x12 positions (with corners). Beside it, the student's map resized to the teacher's.
    """
    generator = torch.Generator().manual_seed(0)
    found = {"one grid": [], "resized": []}
    for _ in range(8):
        scene = 6 * torch.randn(1, 5, 9, 9, generator=generator, dtype=torch.float64)
        teacher = resampled(scene, (12, 12), True, True)
        student = resampled(scene, (24, 24), True, False)
        noise = torch.randn(1, 5, 24, 24, generator=generator, dtype=torch.float64)
        student = student + 0.3 * noise
        student.requires_grad_()
        full = [
            F.interpolate(x, (96, 96), mode="bilinear", align_corners=corners)
            for x, corners in ((student, False), (teacher, True))
        ]
        (exact,) = torch.autograd.grad(logit_kd(*full), student)
        one = logit_kd(*on_one_grid(student, teacher, (False, True)))
        for name, loss in (("one grid", one), ("resized", logit_kd(student, teacher))):
            (slope,) = torch.autograd.grad(loss, student)
            found[name].append(F.cosine_similarity(slope.flatten(), exact.flatten(), dim=0).item())
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means["one grid"] > 0.85 and means["resized"] < 0.5
