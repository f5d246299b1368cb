"""The ways to compute the contrast against plain autograd, in float64.

Triton's kernels run in its interpreter (conftest.py) on a CPU, and compiled where there is a GPU.
"""

from __future__ import annotations

import logging

import pytest
import torch

from afdcd.losses import patch_contrast
from afdcd.losses.afdcd.contrast import compared_pairs
from afdcd.losses.afdcd.kernels import contrast as ops
from afdcd.losses.afdcd.kernels import contrast_compiled, contrast_torch
from afdcd.losses.afdcd.kernels.contrast import map_contrast
from afdcd.losses.afdcd.kernels.tokens import patch_tokens, write_tokens

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def triton_kernel():
    pytest.importorskip("triton")
    from afdcd.losses.afdcd.kernels import contrast_triton

    return contrast_triton.contrast


@pytest.fixture(params=["torch", "compiled", "uncompiled", "triton"])
def kernel(request, monkeypatch):
    if request.param == "triton":
        return request.getfixturevalue("triton_kernel")
    if request.param == "uncompiled":
        monkeypatch.setattr(contrast_compiled, "_compiled", lambda: contrast_compiled.share)
    elif request.param == "compiled":
        monkeypatch.setattr(contrast_compiled, "_broken", False)
    return contrast_torch.contrast if request.param == "torch" else contrast_compiled.contrast


def plain(student, teacher, compared, temperature):
    """The definition, for autograd."""
    distances = (student[:, :, None] - teacher[:, None]).abs().sum(-1)
    logits = (-distances / temperature).masked_fill(~compared, -torch.inf)
    return -logits.log_softmax(-1).diagonal(dim1=-2, dim2=-1).sum()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["omni", "omni_all"])
@pytest.mark.parametrize(
    ("patches", "positions", "groups", "width"),
    [(2, 4, 4, 8), (1, 6, 3, 5), (1, 16, 2, 130), (1, 16, 10, 3), (3, 1, 2, 1)],
)
def test_values_and_gradients(kernel, kind, patches, positions, groups, width):
    generator = torch.Generator().manual_seed(0)
    shape = (patches, positions * groups, width)
    student = torch.randn(shape, generator=generator, dtype=torch.float64).relu().to(DEVICE)
    teacher = torch.randn(shape, generator=generator, dtype=torch.float64).relu().to(DEVICE)
    compared = compared_pairs(kind, groups=groups, positions=positions, device=DEVICE)
    student.requires_grad_()
    for temperature in (1.0, 0.07):
        expected = plain(student, teacher, compared, temperature)
        (slope,) = torch.autograd.grad(expected, student)
        options = {"temperature": temperature, "order": 1.0}
        with torch.no_grad():
            total, gradient = kernel(student, teacher, compared, gradient=True, **options)
            alone, nothing = kernel(student, teacher, compared, gradient=False, **options)
        torch.testing.assert_close(total, expected.detach(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(alone, total, rtol=1e-12, atol=1e-12)
        assert nothing is None
        torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-9 * slope.abs().max().item())


def test_triton_reads_either_layout(triton_kernel):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 8, 4, 8, generator=generator).to(DEVICE) for _ in range(2)]
    compared = compared_pairs("omni", groups=2, positions=16, device=DEVICE)
    results = []
    for last in (False, True):
        tokens = [patch_tokens(x, groups=2, patch=(4, 4), tokens_last=last) for x in maps]
        assert tokens[0].mT.is_contiguous() == last
        results.append(triton_kernel(*tokens, compared, temperature=0.5, order=1.0, gradient=True))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_gradcheck_of_triton(triton_kernel, monkeypatch):
    monkeypatch.setattr(ops, "choose_kernel", lambda *args: triton_kernel)
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 4, 2, 2, generator=generator, dtype=torch.float64).to(DEVICE)
    teacher = torch.randn(1, 4, 2, 2, generator=generator, dtype=torch.float64).to(DEVICE)
    assert torch.autograd.gradcheck(
        lambda s: patch_contrast(s, teacher, groups=2, patch=(2, 2), pool=0, temperature=1.0),
        student.requires_grad_(),
    )


def test_strips_cover_the_map_once(monkeypatch):
    """However the patches are dealt out, the loss and its gradient are the same."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 8, 9, 11, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 8, 9, 11, generator=generator, dtype=torch.float64)
    options = {"groups": 4, "patch": (2, 2), "pool": 0, "temperature": 1.0}
    results = []
    for values in (1, 16 * 16 * 12, 1 << 20):
        monkeypatch.setattr(ops, "STRIP_VALUES", values)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            leaf = student.contiguous(memory_format=memory_format).requires_grad_()
            loss = patch_contrast(leaf, teacher, **options)
            results.append((loss, torch.autograd.grad(loss, leaf)[0]))
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-12, atol=1e-14)


def test_backward_twice():
    student = torch.randn(1, 8, 4, 4, requires_grad=True)
    teacher = torch.randn(1, 8, 4, 4)
    loss = patch_contrast(student, teacher, groups=2, pool=0)
    (first,) = torch.autograd.grad(3 * loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(first, 3 * second)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_can_be_asked_for(mode, monkeypatch):
    student = torch.randn(1, 8, 4, 4, requires_grad=True)
    teacher = torch.randn(1, 8, 4, 4)
    expected = patch_contrast(student, teacher, groups=2, pool=0)
    wanted = []

    def spy(*args, gradient, **options):
        wanted.append(gradient)
        return contrast_torch.contrast(*args, gradient=gradient, **options)

    monkeypatch.setattr(ops, "choose_kernel", lambda *args: spy)
    with mode():
        got = patch_contrast(student, teacher, groups=2, pool=0)
    assert wanted == [False]
    torch.testing.assert_close(got, expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_only_the_gradient_is_saved(distance: str):
    """The kernel's own graph is over with its call, and nothing of it reaches a caller's hooks."""
    student = torch.randn(1, 8, 4, 4, requires_grad=True)
    teacher = torch.randn(1, 8, 4, 4)
    saved = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        map_contrast(
            student,
            teacher,
            compared_pairs("omni", groups=2, positions=16),
            groups=2,
            patch=(4, 4),
            temperature=1.0,
            order={"l1": 1.0, "l2": 2.0}[distance],
            kernel="torch",
        )
    assert saved == [(1, 8, 4, 4)]


def test_tokens_round_trip():
    features = torch.randn(2, 6, 5, 7)
    tokens = patch_tokens(features, groups=3, patch=(2, 3))
    last = patch_tokens(features, groups=3, patch=(2, 3), tokens_last=True)
    assert torch.equal(last, tokens)
    # Patch 1 of image 0 (rows 0-1, columns 3-5), position 4 (row 1, column 4), group 2.
    torch.testing.assert_close(tokens[1, 4 * 3 + 2], features[0, 4:6, 1, 4])
    back = torch.zeros_like(features)
    write_tokens(back, tokens, groups=3, patch=(2, 3))
    torch.testing.assert_close(back[:, :, :4, :6], features[:, :, :4, :6])
    assert back[:, :, 4:].abs().sum() == back[..., 6:].abs().sum() == 0


def test_goes_on_without_a_compiler(monkeypatch, caplog):
    def no_compiler(*args):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(contrast_compiled, "_compiled", lambda: no_compiler)
    monkeypatch.setattr(contrast_compiled, "_broken", False)
    student, teacher = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    options = {"groups": 2, "pool": 0}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            loss = patch_contrast(student, teacher, kernel="compiled", **options)
    torch.testing.assert_close(loss, patch_contrast(student, teacher, kernel="torch", **options))
    assert caplog.text.count("no C++ compiler") == 1


def test_auto_compiles_only_what_pays():
    compared = compared_pairs("omni", groups=16, positions=16)
    small, large = torch.empty(1, 16, 8, 8), torch.empty(2, 2048, 64, 128, device="meta")
    assert ops.choose_kernel("auto", small, compared, 1.0) is contrast_torch.contrast
    assert ops.choose_kernel("auto", large, compared, 1.0) is contrast_compiled.contrast
    assert ops.choose_kernel("auto", large, compared, 2.0) is contrast_torch.contrast
    with pytest.raises(ValueError, match="kernel must be one of auto, torch, compiled, triton"):
        map_contrast(
            small, small, compared, groups=1, patch=(1, 1), temperature=1.0, order=1.0, kernel="c"
        )
