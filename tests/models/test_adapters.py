"""Other people's models in this project's protocol: those that need nothing but PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from afdcd.config import embedded_config
from afdcd.distill import FeatureTaps
from afdcd.distill.teacher import FrozenTeacher
from afdcd.models.adapters import ADAPTERS, Adapter, ImageSettings, read_source
from afdcd.models.adapters.adapter import named_maps
from afdcd.models.weights.read import CheckpointError
from afdcd.utils.problems import SettingsError

from helpers.named_teachers import CLASSES, FUNCTION, Net, write_program

PREDICTOR = "sem_seg_head.predictor"
PLAIN = ImageSettings("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), multiple=1)


def adapter(model: nn.Module, *, image_format: str = "RGB", **images) -> Adapter:
    source = read_source("x.pt", images=ImageSettings(**images), image_format=image_format)
    return Adapter(source, model, PLAIN).eval()


def load(name: str, size: tuple[int, int] = (32, 32), **settings) -> Adapter:
    source = read_source(str(name), **settings)
    kind = ADAPTERS.get(source.kind)
    assert not kind.problems(source)
    made = kind.load(source)
    made.probe(size)
    return made.eval()


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "their_net.py"
    path.write_text(FUNCTION)
    return path


def test_normalization_and_channel_order_by_hand():
    """The sum of the channels with weights 1, 10, 100, in the model's order."""
    conv = nn.Conv2d(3, 1, 1, bias=False)
    conv.weight.data[0, :, 0, 0] = torch.tensor([1.0, 10.0, 100.0])
    image = torch.tensor([7.0, 5.0, 3.0]).view(3, 1, 1).expand(3, 4, 4)
    values = {"mean": (1.0, 2.0, 3.0), "std": (2.0, 1.0, 4.0)}
    same = adapter(conv, **values)([{"image": image}])[0]["sem_seg"]
    # (7 - 1) / 2 + 10 * (5 - 2) / 1 + 100 * (3 - 3) / 4
    assert same.shape == (1, 4, 4) and same[0, 0, 0].item() == 33.0
    reversed_ = adapter(conv, image_format="BGR", **values)([{"image": image}])[0]["sem_seg"]
    # The run's images are BGR: red is 3. (3 - 1) / 2 + 10 * (5 - 2) / 1 + 100 * (7 - 3) / 4
    assert reversed_[0, 3, 3].item() == 131.0
    of_bgr = adapter(conv, format="BGR", image_format="BGR", **values)([{"image": image}])
    assert of_bgr[0]["sem_seg"][0, 0, 0].item() == 33.0


class Strict(nn.Module):
    """The mean of cells of 4 pixels; takes multiples of 8 pixels only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert all(side % 8 == 0 for side in images.shape[-2:]), images.shape
        return F.avg_pool2d(images[:, :2], 4)


def test_padded_and_cropped():
    image = torch.rand(3, 20, 28)
    made = adapter(Strict(), multiple=8)
    with FeatureTaps(made, [PREDICTOR]) as taps:
        output = made([{"image": image}])[0]["sem_seg"]
    # 20x28 is padded to 24x32, whose 6x8 cells are cropped to the 5x7 that show the image.
    torch.testing.assert_close(taps[PREDICTOR], F.avg_pool2d(image[None, :2], 4))
    assert output.shape == (2, 20, 28)
    assert made([{"image": image, "height": 40, "width": 56}])[0]["sem_seg"].shape == (2, 40, 56)
    assert made.padding_of([PREDICTOR, "maps.x"]) == 1 and made.padding_of(["model"]) == 1
    assert made.padding_of(["model.layer"]) == 8
    with pytest.raises(AssertionError):
        adapter(Strict())([{"image": image}])


def test_images_of_several_sizes_in_a_batch():
    images = [torch.rand(3, 20, 28), torch.rand(3, 16, 24)]
    made = adapter(Strict(), multiple=8)
    outputs = made([{"image": image} for image in images])
    assert [tuple(o["sem_seg"].shape) for o in outputs] == [(2, 20, 28), (2, 16, 24)]


def test_one_size_only():
    made = adapter(Strict(), multiple=8, size=(16, 16))
    image = torch.rand(3, 20, 28)
    with FeatureTaps(made, [PREDICTOR]) as taps:
        made([{"image": image}])
    resized = F.interpolate(image[None], (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(taps[PREDICTOR], F.avg_pool2d(resized[:, :2], 4))
    with pytest.raises(SettingsError, match="must be multiples of 8"):
        ImageSettings(multiple=8, size=(20, 16))


class Opposites(nn.Module):
    """A channel of each image, as large as the images, and its opposite."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[:, :1], -images[:, :1]], 1)


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_logits_are_averaged_down_to_a_stride_and_never_enlarged(stride: int):
    image = torch.arange(3 * 8 * 12.0).view(3, 8, 12)
    source = read_source("x.pt", logits_stride=stride, image_format="RGB")
    made = Adapter(source, Opposites(), PLAIN).eval()
    with FeatureTaps(made, [PREDICTOR]) as taps:
        made([{"image": image}])
    # By hand: rows are 12 apart, so the first 4x4 pixels are 0..3, 12..15, 24..27, 36..39.
    found = taps[PREDICTOR]
    if stride == 4:
        assert found[0, 0].tolist() == [[19.5, 23.5, 27.5], [67.5, 71.5, 75.5]]
    else:
        assert found.shape[2:] == ((1, 1) if stride == 16 else (8, 12))
        assert found[0, 0, 0, 0] == (image[0].mean() if stride == 16 else 0.0)
    assert torch.equal(found[:, 1], -found[:, 0])
    coarse = Adapter(read_source("x.pt", logits_stride=2, image_format="RGB"), Strict(), PLAIN)
    with FeatureTaps(coarse.eval(), [PREDICTOR]) as taps:
        coarse([{"image": image[:, :8, :8]}])
    assert taps[PREDICTOR].shape == (1, 2, 2, 2)


def test_what_models_return():
    maps, other = torch.zeros(1, 2, 3, 4), torch.zeros(1, 5, 3, 4)
    assert list(named_maps(maps, "x")) == ["logits"]
    assert named_maps((torch.zeros(3), other, maps), "x")["1"] is other
    assert list(named_maps({"a.b": other, "n": 3, "logits": maps}, "x")) == ["a_b", "logits"]
    for wrong in (None, torch.zeros(2, 3), {"a": 1}):
        with pytest.raises(ValueError, match=r"expected logits \[N, K, h, w\]"):
            named_maps(wrong, "x")


def test_a_function(code):
    made = load(f"{code}:net", images=ImageSettings())
    assert made.channels == len(CLASSES)
    image = torch.randint(0, 256, (3, 32, 32)).float()
    with FeatureTaps(made, ["maps.features", PREDICTOR, "model.stem"]) as taps:
        made([{"image": image}])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    expected = made.model(((image.flip(0) - mean) / std)[None])  # the run's images are BGR
    torch.testing.assert_close(taps["maps.features"], expected["features"])
    torch.testing.assert_close(taps[PREDICTOR], expected["logits"])
    torch.testing.assert_close(taps["model.stem"].relu(), expected["features"])


def test_a_function_of_the_config_and_a_checkpoint(code, tmp_path):
    cfg = embedded_config()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 7
    weights = Net(7).state_dict()
    torch.save(weights, tmp_path / "net.pth")
    made = load(f"{code}:with_config", config=cfg, weights=str(tmp_path / "net.pth"))
    assert made.channels == 7
    assert torch.equal(made.model.stem.weight, weights["stem.weight"])
    torch.save({"stem.weight": weights["stem.weight"]}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match="doesn't fit Net"):
        load(f"{code}:with_config", config=cfg, weights=str(tmp_path / "part.pth"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fails", "no such weights"),
        ("no_module", "expected a torch.nn.Module"),
        ("absent", "has no function absent"),
    ],
)
def test_functions_that_fail(code, function: str, words: str):
    with pytest.raises(CheckpointError, match=words):
        load(f"{code}:{function}")


def test_a_model_that_fails_on_training_images():
    with pytest.raises(CheckpointError, match=r"images of 20x28 \(AssertionError"):
        adapter(Strict()).probe((20, 28))


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".ts"])
def test_programs(tmp_path, suffix: str):
    path = write_program(tmp_path / f"net{suffix}")
    made = load(path)
    assert made.channels == len(CLASSES)
    torch.manual_seed(3)
    net = Net()
    images = torch.randint(0, 256, (2, 3, 36, 44)).float()
    items = [{"image": image} for image in images]
    teacher = FrozenTeacher(made, dtype=torch.bfloat16)
    maps = teacher.features(items, [PREDICTOR, "maps.features"])
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        expected = net((images.flip(1) - mean) / std)
    # Programs run in their own precision, whatever the teacher's is.
    torch.testing.assert_close(maps[PREDICTOR], expected["logits"])
    torch.testing.assert_close(maps["maps.features"], expected["features"])
    assert made.state_dict() and all(v.isfinite().all() for v in made.state_dict().values())


def test_a_program_for_single_images_of_one_size(tmp_path):
    path = write_program(tmp_path / "net.pt2", size=(32, 48))
    with pytest.raises(CheckpointError, match=r"exported for images of 32x48; got 32x32"):
        load(path)
    made = load(path, images=ImageSettings(size=(32, 48)))
    items = [{"image": torch.rand(3, 32, 48) * 255} for _ in range(2)]
    together = made(items)
    for item, output in zip(items, together, strict=True):
        torch.testing.assert_close(made([item])[0]["sem_seg"], output["sem_seg"])


def test_a_program_is_loaded_anew_on_the_device_that_it_is_moved_to(tmp_path, monkeypatch):
    """Devices may stand in its code. The meta device stands in for a GPU."""
    made = load(write_program(tmp_path / "net.pt"))
    read = []

    def fresh(cls, path: str, device: torch.device) -> nn.Module:
        read.append((path, device.type))
        return Net().to(device)

    monkeypatch.setattr(ADAPTERS.get("torchscript"), "read", classmethod(fresh))
    made.float()
    assert not read  # the same device
    made._apply(lambda tensor: tensor.to("meta"))
    assert read == [(str(tmp_path / "net.pt"), "meta")]
    assert made.device.type == "meta" and not made.model.training
    assert not any(p.requires_grad for p in made.parameters())


@pytest.mark.parametrize("name", ["net.pt2", "net.pt"])
def test_files_that_are_no_programs(tmp_path, name: str):
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="can't be loaded"):
        load(tmp_path / name)
    source = read_source(str(tmp_path / "absent.pt"))
    assert "no checkpoint at" in ADAPTERS.get(source.kind).problems(source)[0]


def test_precision_of_a_module_follows_the_teachers(code):
    made = load(f"{code}:net")
    maps = FrozenTeacher(made, dtype=torch.bfloat16).features(
        [{"image": torch.rand(3, 32, 32) * 255}], [PREDICTOR]
    )
    assert maps[PREDICTOR].dtype == torch.bfloat16
    assert made.model.stem.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("teacher.yaml", "names no model of a known kind"),
        ("a.b:c d", "hf"),
    ],
)
def test_names_of_nothing(name: str, words: str):
    with pytest.raises(ValueError, match=words):
        read_source(name)


def test_a_kind_of_ones_own(monkeypatch):
    monkeypatch.setattr(ADAPTERS, "_obj_map", dict(ADAPTERS._obj_map))

    @ADAPTERS.register("mine")
    class Mine(Adapter):
        @classmethod
        def load(cls, source):
            return cls(source, Net(), cls.image_defaults(source))

    assert load("mine:anything").channels == len(CLASSES)


def test_kinds_by_name(tmp_path):
    names = {
        "hf:org/name": "hf",
        "smp:FPN/resnet18": "smp",
        "a/b.pt2": "pt2",
        "b.pt": "torchscript",
        "b.ts": "torchscript",
        "package.module:function": "function",
        "their/net.py:function": "function",
    }
    assert {name: read_source(name).kind for name in names} == names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:nothing", "there is no folder"),
        ("smp:nothing", "smp:ARCH/ENCODER"),
        ("fh:nothing", "no module fh"),
        ("absent.py:net", "no file"),
    ],
)
def test_what_is_missing_is_said_beforehand(name: str, words: str):
    source = read_source(name)
    assert any(words in text for text in ADAPTERS.get(source.kind).problems(source))


def test_a_missing_package_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, extra in (("hf:org/name", "afdcd[transformers]"), ("smp:FPN/resnet18", "afdcd[smp]")):
        source = read_source(name)
        assert extra in ADAPTERS.get(source.kind).problems(source)[0]


def test_optional_packages_are_not_imported_unasked():
    script = (
        "import sys, afdcd.cli.train_net, afdcd.cli.doctor, afdcd.engine.adapted_teacher\n"
        "print([n for n in ('transformers', 'segmentation_models_pytorch', 'timm')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
