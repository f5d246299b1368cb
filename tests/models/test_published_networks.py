"""Network outputs against the published implementation (tests/data/models.npz).

Tolerances: float64 1e-9; float32 relative L2 5e-5.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from afdcd.models import build_segmentor, count_multiply_adds, count_parameters, load_weights

from helpers import reference

pytestmark = pytest.mark.slow

VECTORS = reference.load("models")
MODELS = reference.manifest("models")
SIZES = ("65x97", "64x96", "321x353")
ARCHITECTURES = {
    "deeplabv3": "deeplabv3",
    "deeplab_mobile": "deeplabv3",
    "psp": "pspnet",
    "psp_mobile": "pspnet",
}


def build(name: str) -> nn.Module:
    case = MODELS[name]
    model = build_segmentor(ARCHITECTURES[case["model"]], case["backbone"], case["num_class"])
    report = load_weights(model, reference.published_state_dict(name))
    assert len(report.loaded) == case["state_dict_entries"]
    assert not report.left_out
    return model.eval()


def raw_outputs(model: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The published networks' outputs, all at the stride of the features."""
    head = model.sem_seg_head
    features = model.backbone(image)
    hidden = head.fuse(head.context(features["res5"]))
    outputs = {
        "logits": head.predictor(hidden),
        "c4": features["res5"],
        "head_feature": hidden,
    }
    if head.aux is not None:
        outputs["aux"] = head.aux(features["res4"])
    return outputs


@pytest.mark.parametrize("name", MODELS)
def test_outputs(name: str):
    model = build(name)
    for size in SIZES:
        height, width = map(int, size.split("x"))
        image = torch.from_numpy(reference.normal(f"image/{size}", (1, 3, height, width)))
        with torch.no_grad():
            single = raw_outputs(model.float(), image)
            double = raw_outputs(model.double(), image.double())
        for output in MODELS[name]["outputs"]:
            key = f"{name}/{size}/{output}"
            value = double[output]
            assert tuple(value.shape) == tuple(VECTORS[f"{key}/shape"]), key
            np.testing.assert_allclose(value.norm().item(), VECTORS[f"{key}/l2"], rtol=1e-9)
            np.testing.assert_allclose(
                value.std(correction=0).item(), VECTORS[f"{key}/std"], rtol=1e-9
            )
            expected = VECTORS[f"{key}/sample"]
            np.testing.assert_allclose(
                reference.strided_sample(value, 512),
                expected,
                rtol=0,
                atol=1e-9 * np.abs(expected).max(),
                err_msg=key,
            )
            sample = reference.strided_sample(single[output], 512)
            error = np.linalg.norm(sample - expected) / np.linalg.norm(expected)
            assert error < 5e-5, (key, error)


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name: str):
    assert count_parameters(build(name)) == MODELS[name]["parameters"]


@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds(name: str):
    """Counted with the auxiliary head, which evaluation skips: its share is added here."""
    model = build(name)
    aux = model.sem_seg_head.aux
    for size, counts in MODELS[name]["multiply_adds"].items():
        height, width = map(int, size.split("x")[2:])
        expected = counts["conv_multiply_adds_actual_output_size"]
        positions = (height // 8) * (width // 8)
        if aux is not None:
            expected -= positions * (aux.conv.weight.numel() + aux.predictor.weight.numel())
        assert count_multiply_adds(model, height, width) == expected
