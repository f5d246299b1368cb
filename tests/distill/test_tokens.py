"""Taps on tokens: their grids, what stands in front of them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afdcd.distill import FeatureTaps, TapError, tap_shapes
from afdcd.losses.registry import TapShape
from afdcd.models import build_segmentor
from afdcd.models.layers import ShapeSpec

from helpers.segformer_names import small_segformer


class Patches(nn.Module):
    """A token of one channel for each 2x2 pixels, their sum, behind ``front`` others of -1."""

    def __init__(self, front: int) -> None:
        super().__init__()
        self.front = front
        self.block = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = 4 * nn.functional.avg_pool2d(x[:, :1], 2)
        tokens = sums.flatten(2).transpose(1, 2)
        extra = tokens.new_full((len(x), self.front, 1), -1.0)
        return self.block(torch.cat((extra, tokens), dim=1))


class Telling(Patches):
    asked = ()

    def token_grid(self, path: str, image_size: tuple[int, int]) -> tuple[int, int]:
        self.asked = (path, image_size)
        return image_size[0] // 2, image_size[1] // 2


class Strided(Patches):
    strides = (2, 4)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{stride}": ShapeSpec(channels=1, stride=stride) for stride in self.strides}


class Model(nn.Module):
    """Of images [N, 1, H, W], as they are or in Detectron2's protocol."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Identity()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        if isinstance(x, list):
            x = torch.stack([item["image"] for item in x])
        return self.head(self.backbone(x) * self.scale)


IMAGE = torch.arange(24.0).view(1, 1, 4, 6)
# 0+1+6+7, 2+3+8+9, 4+5+10+11; and 12 * 4 more each in the second row.
SUMS = torch.tensor([[[[14.0, 22.0, 30.0], [62.0, 70.0, 78.0]]]])


@pytest.mark.parametrize("front", [0, 1, 5])
@pytest.mark.parametrize("kind", [Telling, Strided])
def test_a_grid_by_hand(kind: type[Patches], front: int):
    model = Model(kind(front))
    with FeatureTaps(model, ["backbone.block"]) as taps:
        model(IMAGE)
    assert torch.equal(taps["backbone.block"], SUMS)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_is_told():
    backbone = Telling(20)
    model = Model(backbone)
    with FeatureTaps(model, ["backbone.block"]) as taps:
        model(IMAGE)
    assert backbone.asked == ("block", (4, 6))
    assert torch.equal(taps["backbone.block"], SUMS)  # however many are in front


def test_tokens_outside_the_backbone():
    """The backbone tells, by the images that it was given."""
    for backbone in (Telling(1), Strided(1)):
        with FeatureTaps(model := Model(backbone), ["head"]) as taps:
            model(IMAGE)
        assert torch.equal(taps["head"], SUMS)


def test_gradients_reach_the_tokens():
    model = Model(Telling(1))
    with FeatureTaps(model, ["head"]) as taps:
        model(IMAGE)
    taps["head"].sum().backward()
    assert model.scale.grad.item() == SUMS.sum()  # the token in front has no part in it


def test_a_map_is_contiguous_on_a_cpu():
    model = small_segformer()
    path = "backbone.res2.blocks.0"
    with torch.no_grad(), FeatureTaps(model, [path]) as taps:
        model([{"image": torch.rand(3, 40, 56)}])
    assert taps[path].shape == (1, 4, 10, 14) and taps[path].is_contiguous()


def test_sides_that_strides_do_not_divide():
    """As the backbones here do it: ceil."""
    backbone = Strided(3)
    backbone.strides = (4,)
    backbone.forward = lambda x: backbone.block(torch.zeros(1, 3 + 3 * 2, 5))
    with FeatureTaps(model := Model(backbone), ["backbone.block"]) as taps:
        model(torch.zeros(1, 1, 9, 8))
    assert taps["backbone.block"].shape == (1, 5, 3, 2)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            Patches(0),
            r"the student: 'backbone.block' gives 6 tokens \(a tensor of shape \(1, 6, 1\)\), and "
            "nothing tells .* method token_grid",
        ),
        (
            Strided(9),
            "gives 15 tokens .* for images of 4x6, which no stride of 'backbone' accounts for: "
            r"2 \(2x3\), 4 \(1x2\)",
        ),
        (Strided(6), "which no stride"),  # as many in front as positions
    ],
)
def test_refusals(backbone: nn.Module, message: str):
    model = Model(backbone)
    with (
        pytest.raises(TapError, match=message),
        FeatureTaps(model, ["backbone.block"], whose="the student"),
    ):
        model(IMAGE)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_grid_with_more_positions_than_tokens():
    backbone = Telling(0)
    backbone.token_grid = lambda path, size: (4, 6)
    message = r"token_grid of 'backbone' says that they lie on 4x6 positions"
    with (
        pytest.raises(TapError, match=message),
        FeatureTaps(model := Model(backbone), ["backbone.block"]),
    ):
        model(IMAGE)


def test_a_model_that_tells_but_sees_no_images():
    """It is given Detectron2's records, and has no backbone that could tell their size."""

    class Records(Telling):
        def forward(self, records):
            return super().forward(torch.stack([item["image"] for item in records]))

    message = "nothing tells which grid .*another module around it that takes images"
    with (
        pytest.raises(TapError, match=message),
        FeatureTaps(model := Records(0), ["block"]),
    ):
        model([{"image": IMAGE[0]}])


def test_overwritten_tokens_are_noticed():
    model = Model(Telling(0))
    model.head = nn.ReLU(inplace=True)
    with torch.no_grad(), FeatureTaps(model, ["backbone.block", "backbone"]) as taps:
        model.forward = lambda x: model.head(model.backbone(x))
        model(IMAGE)
    with pytest.raises(TapError, match=r"overwrites the output of 'backbone.block' in place"):
        taps["backbone.block"]


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_every_kind_of_module_of_mit(size: tuple[int, int]):
    model = small_segformer()
    height, width = ((side + 7) // 8 for side in size)
    shapes = {
        "backbone.res3": TapShape(8, height, width),
        "backbone.res3.blocks.0": TapShape(8, height, width),
        "backbone.res3.blocks.1.norm2": TapShape(8, height, width),
        "backbone.res3.blocks.1.ffn.expand": TapShape(32, height, width),
        "backbone.res3.blocks.1.attn": TapShape(8, height, width),
        "backbone.res3.blocks.1.attn.q": TapShape(8, height, width),
        "backbone.res3.blocks.1.attn.kv": TapShape(16, height // 4, width // 4),
        "backbone.res3.blocks.1.attn.reduce": TapShape(8, height // 4, width // 4),
        "backbone.res3.blocks.1.attn.reduce.norm": TapShape(8, height // 4, width // 4),
        "backbone.res3.norm": TapShape(8, height, width),
        "sem_seg_head.mlp": TapShape(24, *((side + 3) // 4 for side in size)),
    }
    assert tap_shapes(model, list(shapes), size=size) == shapes


def test_a_stages_last_norm_is_its_map():
    model = small_segformer()
    paths = ["backbone.res4", "backbone.res4.norm"]
    with torch.no_grad(), FeatureTaps(model, paths) as taps:
        model([{"image": torch.rand(3, 50, 71)}])
    assert torch.equal(taps[paths[0]], taps[paths[1]])


def test_outputs_that_are_neither():
    with pytest.raises(TapError, match=r"one feature map \[N, C, H, W\] or tokens \[N, L, C\]"):
        tap_shapes(build_segmentor(num_classes=2), ["backbone"])


class ChannelsLast(Strided):
    """[N, H, W, C] on the grid of stride 4, of the image's first channel and zeros."""

    channels = 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        map_ = nn.functional.avg_pool2d(x[:, :1], 4)
        padded = nn.functional.pad(map_, (0, 0, 0, 0, 0, self.channels - 1))
        return self.block(padded.movedim(1, 3).contiguous())


def test_maps_with_channels_last():
    model = Model(ChannelsLast(0))
    image = torch.rand(2, 1, 40, 48)
    with FeatureTaps(model, ["backbone.block"]) as taps:
        model(image)
    features = taps["backbone.block"]
    assert features.shape == (2, 5, 10, 12) and features.is_contiguous()
    torch.testing.assert_close(features[:, :1], nn.functional.avg_pool2d(image, 4))
    assert not features[:, 1:].any()


def test_maps_with_channels_first_that_look_like_it():
    """16 channels of 32x64 for images of 64x128: 16x32 is a grid, too, that of stride 4."""

    class Stem(Strided):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(nn.functional.avg_pool2d(x[:, :1], 2).repeat(1, 16, 1, 1))

    model = Model(Stem(0))
    with FeatureTaps(model, ["backbone.block"]) as taps:
        model(torch.rand(1, 1, 64, 128))
    assert taps["backbone.block"].shape == (1, 16, 32, 64)
