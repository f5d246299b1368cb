"""The whole loss as a module."""

from __future__ import annotations

import pytest
import torch

from afdcd.losses import AfDCDLoss, LossContext, masked_reconstruction, patch_contrast


def test_is_the_sum_of_its_parts():
    loss = AfDCDLoss(6, 16, groups=4, pool=2, patch=(2, 2), temperature=1.0)
    student, teacher = torch.randn(2, 6, 8, 8), torch.randn(2, 16, 8, 8)
    mask = (torch.rand(2, 1, 8, 8) > 0.75).float()
    terms = loss(student, teacher, mask=mask)
    torch.testing.assert_close(
        terms["reconstruction"],
        masked_reconstruction(
            student, teacher, align=loss.align, projector=loss.projector, mask=mask
        ),
    )
    projected = loss.projector(loss.align(student) * mask)
    torch.testing.assert_close(
        terms["contrast"],
        patch_contrast(projected, teacher, groups=4, pool=2, patch=(2, 2), temperature=1.0),
    )


def test_state_dict_is_align_and_projector():
    names = ["align.weight", "align.bias"]
    names += [f"projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    assert list(AfDCDLoss(4, 32).state_dict()) == names
    assert list(AfDCDLoss(32, 32).state_dict()) == names[2:]  # equal channels: no align


def test_equal_channels_and_batch_of_one():
    """The batch is averaged over: the same image twice gives the same terms and gradients."""
    loss = AfDCDLoss(32, 32, mask="centre").double()
    student, teacher = (torch.randn(1, 32, 16, 16, dtype=torch.float64) for _ in range(2))
    results = []
    for count in (1, 2):
        terms = loss(student.repeat(count, 1, 1, 1), teacher.repeat(count, 1, 1, 1))
        slopes = torch.autograd.grad(sum(terms.values()), list(loss.parameters()))
        assert all(slope.any() for slope in slopes)
        results.append([*terms.values(), *slopes])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_masks_come_from_the_generator():
    loss = AfDCDLoss(4, 32)
    student, teacher = torch.randn(1, 4, 16, 16), torch.randn(1, 32, 16, 16)

    def terms(seed: int) -> dict[str, torch.Tensor]:
        context = LossContext(generator=torch.Generator().manual_seed(seed))
        return loss(student, teacher, context=context)

    assert terms(1)["reconstruction"] == terms(1)["reconstruction"]
    assert terms(1)["reconstruction"] != terms(2)["reconstruction"]


def test_maps_of_different_size():
    loss = AfDCDLoss(4, 32, pool=0, mask="centre")
    student, teacher = torch.randn(2, 4, 5, 7), torch.randn(2, 32, 9, 13)
    resized = torch.nn.functional.interpolate(student, size=(9, 13), mode="bilinear")
    expected = loss(resized, teacher)
    for name, value in loss(student, teacher).items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_maps_with_and_without_autocast(dtype: torch.dtype):
    loss = AfDCDLoss(4, 32, mask="centre")
    student, teacher = torch.randn(2, 4, 16, 16).to(dtype), torch.randn(2, 32, 16, 16).to(dtype)
    expected = loss(student.float(), teacher.float())
    plain = loss(student, teacher)
    for name, value in plain.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name])
    with torch.autocast("cpu", dtype=dtype):
        mixed = loss(student, teacher)
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "half"}, "mask must be one of random, centre"),
        ({"mask_ratio": -0.1}, "mask_ratio"),
        ({"projector": "deep"}, "projector must be one of plain, enhanced"),
        ({"groups": 7}, "7 groups for 32 channels"),
        ({"kind": "all"}, "kind must be one of"),
        ({"reduction": "none"}, "reduction must be"),
    ],
)
def test_settings_are_checked_at_construction(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AfDCDLoss(4, 32, **options)


def test_wrong_maps():
    loss = AfDCDLoss(4, 32)
    with pytest.raises(ValueError, match=r"student map \[N, 4, H, W\]; got shape \(1, 5, 16, 16\)"):
        loss(torch.zeros(1, 5, 16, 16), torch.zeros(1, 32, 16, 16))
    with pytest.raises(ValueError, match="same images; got 2 and 1"):
        loss(torch.zeros(2, 4, 16, 16), torch.zeros(1, 32, 16, 16))
