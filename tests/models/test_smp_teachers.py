"""Models of segmentation_models_pytorch as teachers: with random weights, saved to files."""

from __future__ import annotations

import pytest
import torch

from afdcd.distill import FeatureTaps
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure
from afdcd.models.adapters import ADAPTERS, Adapter, read_source
from afdcd.models.weights.read import CheckpointError

from helpers.named_teachers import CLASSES, write_named

PREDICTOR = "sem_seg_head.predictor"


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation_models_pytorch isn't installed"
    )


@pytest.fixture
def model(library):
    torch.manual_seed(0)
    return library.create_model(
        "FPN", encoder_name="resnet18", encoder_weights=None, classes=len(CLASSES)
    ).eval()


def load(name: str, **settings) -> Adapter:
    source = read_source(name, **settings)
    kind = ADAPTERS.get(source.kind)
    assert not kind.problems(source)
    made = kind.load(source)
    made.probe((64, 64))
    return made.eval()


def test_a_folder_and_a_state_dict_are_the_same_model(model, tmp_path):
    model.save_pretrained(str(tmp_path / "folder"))
    torch.save(model.state_dict(), tmp_path / "fpn.pth")
    by_folder = load(f"smp:{tmp_path / 'folder'}")
    by_file = load("smp:FPN/resnet18", weights=str(tmp_path / "fpn.pth"))
    images = torch.randint(0, 256, (2, 3, 64, 96)).float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        expected = model((images.flip(1) - mean) / std)
        for made in (by_folder, by_file):
            assert made.channels == len(CLASSES)
            with FeatureTaps(made, [PREDICTOR]) as taps:
                made([{"image": image} for image in images])
            torch.testing.assert_close(taps[PREDICTOR], expected, rtol=1e-4, atol=1e-4)


def test_logits_at_the_stride_that_the_model_computed_them(model, tmp_path):
    """FPN enlarges them four times; they are averaged over the pixels of each of its cells."""
    torch.save(model.state_dict(), tmp_path / "fpn.pth")
    weights = str(tmp_path / "fpn.pth")
    made = load("smp:FPN/resnet18", weights=weights, logits_stride=4, image_format="RGB")
    images = torch.randint(0, 256, (2, 3, 64, 96)).float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad(), FeatureTaps(made, [PREDICTOR]) as taps:
        made([{"image": image} for image in images])
        full = model((images - mean) / std)
    expected = full.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(4, 5))
    torch.testing.assert_close(taps[PREDICTOR], expected, rtol=1e-4, atol=1e-4)


def test_images_that_the_stride_does_not_divide(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "fpn.pth")
    made = load("smp:FPN/resnet18", weights=str(tmp_path / "fpn.pth"))
    assert made.multiple == 32
    assert made([{"image": torch.rand(3, 40, 72)}])[0]["sem_seg"].shape == (len(CLASSES), 40, 72)


def test_what_does_not_fit_is_refused(model, tmp_path):
    weights = str(tmp_path / "fpn.pth")
    torch.save(model.state_dict(), weights)
    for name, words in (
        ("smp:Unet/resnet18", "doesn't fit"),
        ("smp:FNP/resnet18", "can't be loaded by segmentation_models_pytorch"),
        ("smp:FPN/resnet", "can't be loaded by segmentation_models_pytorch"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load(name, weights=weights)
    torch.save({"a": torch.zeros(3)}, weights)
    with pytest.raises(CheckpointError, match="no convolution of a segmentation_head"):
        load("smp:FPN/resnet18", weights=weights)


def test_a_run(model, configs, tmp_path):
    torch.save(model.state_dict(), tmp_path / "fpn.pth")
    losses = {
        "logit_kd": {"NAME": "logit_kd"},
        "features": {"NAME": "feature_kd", "TAPS": [["backbone.res5", "model.encoder.layer3"]]},
    }
    config = write_named(
        configs,
        "smp:FPN/resnet18",
        losses=losses,
        CLASSES=CLASSES,
        WEIGHTS=str(tmp_path / "fpn.pth"),
    )
    run(configure(str(config), ["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITER", "2"]))
    assert (tmp_path / "run/student_final.pth").is_file()
