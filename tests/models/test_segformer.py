"""SegFormer: sizes, its parts beside naive loops, precision, the head's resizing and losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from afdcd.engine.optimizer import build_optimizer
from afdcd.engine.settings import OptimizerSettings
from afdcd.models import (
    MiT,
    MLPHead,
    ResNet,
    SemanticSegmentor,
    build_segmentor,
    count_multiply_adds,
    count_parameters,
)
from afdcd.models.backbones.mit import DropPath, EfficientAttention, MixFFN, TokenNorm
from afdcd.models.layers import ShapeSpec

from helpers.segformer_names import STAGES, WIDTHS, small_segformer


def test_parameters():
    assert count_parameters(build_segmentor("segformer", "mit_b0", num_classes=11)) == 3_716_971


# Millions of parameters of the paper's table 1a and table 2 (ADE20K, 150 classes).
@pytest.mark.parametrize(
    ("variant", "millions"),
    [("b0", 3.8), ("b1", 13.7), ("b2", 27.5), ("b3", 47.3), ("b4", 64.1), ("b5", 84.7)],
)
def test_variants_have_the_papers_sizes(variant: str, millions: float):
    with torch.device("meta"):
        model = build_segmentor("segformer", f"mit_{variant}", num_classes=150)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.1)


def test_multiply_adds_are_the_papers():
    model = build_segmentor("segformer", "mit_b0", num_classes=150)
    assert count_multiply_adds(model, 512, 512) / 1e9 == pytest.approx(8.4, abs=0.1)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (50, 71), (29, 29)])
def test_maps_and_logits(size: tuple[int, int]):
    model = small_segformer()
    maps = model.backbone(torch.rand(1, 3, *size))
    for index, stage in enumerate(STAGES):
        stride = 4 * 2**index
        expected = tuple(math.ceil(side / stride) for side in size)
        assert maps[stage].shape == (1, WIDTHS[index], *expected)
        assert maps[stage].is_contiguous()
        assert model.backbone.output_shape()[stage] == (WIDTHS[index], None, None, stride)
    (output,) = model([{"image": torch.rand(3, *size) * 255}])
    assert output["sem_seg"].shape == (3, *size)


def test_images_too_small():
    model = small_segformer()
    with pytest.raises(ValueError, match="at least 29x29 pixels; got 28x64"):
        model([{"image": torch.zeros(3, 28, 64)}])


def test_fewer_stages_compute_less():
    backbone = MiT(widths=WIDTHS, depths=(1, 1, 1, 1), out_features=("res3",))
    assert backbone(torch.rand(1, 3, 32, 32)).keys() == {"res3"}
    assert backbone.output_shape() == {"res3": ShapeSpec(channels=8, stride=8)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "b6"}, "variant must be one of b0, b1, b2, b3, b4, b5; got 'b6'"),
        ({"widths": (8, 16, 24, 32)}, r"multiples of 1, 2, 5, 8, .*got \[8, 16, 24, 32\]"),
        ({"widths": (8, 16)}, "widths takes four"),
        ({"depths": (1, 1, 0, 1)}, "depths takes four"),
        ({"drop_path": 1.0}, "drop_path must be from 0 to below 1; got 1.0"),
        ({"out_features": ("res6",)}, "out_features takes some of res2"),
    ],
)
def test_refusals(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MiT(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "mit_b6"}, "mit_b0 to mit_b5, or timm:NAME; got 'mit_b6'"),
        ({"output_stride": 8}, "MiT's output_stride is 32; got 8"),
        ({"width_mult": 0.5}, "width_mult is for MobileNetV2"),
    ],
)
def test_refusals_of_the_builder(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_segmentor(**{"architecture": "segformer", "backbone": "mit_b0", **options})


@torch.no_grad()
def test_attention_beside_loops():
    """On 5x7 tokens, of which the last row and column have no part in keys and values."""
    torch.manual_seed(0)
    channels, heads, ratio, size = 6, 2, 2, (5, 7)
    layer = EfficientAttention(channels, heads, ratio).double()
    x = torch.randn(2, 35, channels, dtype=torch.float64)
    kernel, bias = layer.reduce.conv.weight, layer.reduce.conv.bias
    for image, found in zip(x, layer(x, size), strict=True):
        reduced = []
        for row in range(2):
            for column in range(3):
                total = bias.clone()
                for dy in range(2):
                    for dx in range(2):
                        token = image[(2 * row + dy) * 7 + 2 * column + dx]
                        total += kernel[:, :, dy, dx] @ token
                spread = ((total - total.mean()) ** 2).mean()
                reduced.append((total - total.mean()) / (spread + 1e-5).sqrt())
        pairs = [layer.kv.weight @ token + layer.kv.bias for token in reduced]
        for index, token in enumerate(image):
            q = layer.q.weight @ token + layer.q.bias
            mixed = torch.zeros(channels, dtype=torch.float64)
            for head in range(heads):
                part = slice(3 * head, 3 * head + 3)
                scores = [float(q[part] @ kv[:6][part]) / math.sqrt(3) for kv in pairs]
                weights = [math.exp(score) for score in scores]
                for weight, kv in zip(weights, pairs, strict=True):
                    mixed[part] += weight / sum(weights) * kv[6:][part]
            expected = layer.proj.weight @ mixed + layer.proj.bias
            torch.testing.assert_close(found[index], expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_mix_ffn_beside_loops():
    torch.manual_seed(0)
    layer = MixFFN(2).double()
    x = torch.randn(1, 12, 2, dtype=torch.float64)
    found = layer(x, (3, 4))[0]
    hidden = [layer.expand.weight @ token + layer.expand.bias for token in x[0]]
    kernel = layer.depthwise.weight[:, 0]
    for row in range(3):
        for column in range(4):
            total = layer.depthwise.bias.clone()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= row + dy < 3 and 0 <= column + dx < 4:
                        place = (row + dy) * 4 + column + dx
                        total += kernel[:, dy + 1, dx + 1] * hidden[place]
            active = total * (1 + torch.erf(total / math.sqrt(2))) / 2
            expected = layer.project.weight @ active + layer.project.bias
            torch.testing.assert_close(found[row * 4 + column], expected, rtol=1e-9, atol=1e-12)


def test_drop_path():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    assert layer.eval()(x) is x
    out = layer.train()(x)
    values = out[:, 0, 0]
    assert torch.equal(out, values[:, None, None].expand_as(out))  # whole images
    assert set(values.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (values == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    rates = [block.drop_path.rate for s in STAGES for block in getattr(MiT(), s).blocks]
    assert rates == pytest.approx([0.1 * n / 7 for n in range(8)])


def test_norms_get_no_decay():
    model = small_segformer()
    settings = OptimizerSettings(base_lr=0.1, weight_decay=0.5, weight_decay_norm=0.0)
    groups = build_optimizer(settings, model).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    kinds = (nn.LayerNorm, nn.BatchNorm2d)
    norms = [m for m in model.modules() if isinstance(m, kinds)]
    of_norms = {id(p) for m in norms for p in m.parameters()}
    assert sum(isinstance(m, TokenNorm) for m in norms) == 4 + 2 * 6 + 4 + 4
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.0 if id(parameter) in of_norms else 0.5), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_residual_sum_stays_in_float32(dtype: torch.dtype):
    torch.manual_seed(0)
    backbone = MiT(widths=WIDTHS, depths=(1, 2, 1, 2)).eval()
    seen = []
    for stage in STAGES:
        for block in getattr(backbone, stage).blocks:
            block.register_forward_hook(lambda _, args, out: seen.extend((args[0], out)))
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        expected = backbone(x)["res5"]
        with torch.autocast("cpu", dtype=dtype):
            found = backbone(x)["res5"]
    assert len(seen) == 4 * 6 and {tensor.dtype for tensor in seen} == {torch.float32}
    assert found.dtype == torch.float32
    # bfloat16 has 8 bits, float16 11.
    difference = (found - expected).norm() / expected.norm()
    assert difference < {torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]


def test_scores_and_sums_beyond_float16():
    """Products of queries and keys of 4 * 300 * 300 / 2, and a residual of 1e5: above 65504."""
    layer = EfficientAttention(4, 1, 1)
    with torch.no_grad():
        for linear in (layer.q, layer.kv, layer.proj):
            linear.weight.zero_()
            linear.bias.zero_()
        layer.q.bias.fill_(300)
        layer.kv.bias.copy_(torch.tensor([300.0] * 4 + [1.0, 2.0, 3.0, 4.0]))
        layer.proj.weight.copy_(torch.eye(4))
        x = torch.rand(1, 6, 4)
        with torch.autocast("cpu", dtype=torch.float16):
            found = layer(x, (2, 3))
            normed = TokenNorm(2)(torch.tensor([[1e5, -1e5]]))
    torch.testing.assert_close(found.float(), torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 6, 4))
    torch.testing.assert_close(normed, torch.tensor([[1.0, -1.0]]))


@torch.no_grad()
def test_the_heads_arithmetic():
    """Two stages of one channel, one hidden channel: all by hand."""
    shape = {"a": ShapeSpec(channels=1, stride=4), "b": ShapeSpec(channels=1, stride=8)}
    head = MLPHead(shape, in_features=("a", "b"), num_classes=1, hidden_channels=1).eval()
    for layer, weight, bias in ((head.mlp.a, 2.0, 1.0), (head.mlp.b, 3.0, 0.5)):
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    head.fuse.weight.copy_(torch.tensor([10.0, 1.0]).view(1, 2, 1, 1))  # the coarser comes first
    head.predictor.weight.fill_(1)
    head.predictor.bias.fill_(0)
    maps = {"a": torch.tensor([[[[0.0, 1, 2, 3]]]]), "b": torch.tensor([[[[0.0, 4.0]]]])}
    # Edges on edges, from 2 to 4 columns: 1, 3/4 1/4, 1/4 3/4, 1.
    coarse = 3 * torch.tensor([0.0, 1.0, 3.0, 4.0]) + 0.5
    fine = 2 * torch.tensor([0.0, 1.0, 2.0, 3.0]) + 1
    expected = (10 * coarse + fine) / math.sqrt(1 + head.fuse.norm.eps)
    torch.testing.assert_close(head.layers(maps)[0, 0, 0], expected)
    logits, losses = head(maps)  # another library's: whole strides are assumed
    assert logits.shape == (1, 1, 4, 16) and losses == {}
    # From 4 columns to 16: those of the first two pixels are left of the first one's middle.
    torch.testing.assert_close(logits[0, 0, 0, 1], expected[0])
    torch.testing.assert_close(logits[0, 0, 0, 2], 0.875 * expected[0] + 0.125 * expected[1])


def test_the_loss_sees_logits_of_the_targets_size():
    torch.manual_seed(0)
    model = small_segformer().train()
    for module in model.modules():
        if isinstance(module, (nn.Dropout, DropPath, nn.BatchNorm2d)):
            module.eval()
    features = model.backbone(torch.rand(2, 3, 40, 48))
    targets = torch.randint(0, 3, (2, 40, 48))
    targets[:, :9] = 255
    head = model.sem_seg_head
    full = F.interpolate(head.layers(features), size=(40, 48), mode="bilinear")
    expected = F.cross_entropy(full, targets, ignore_index=255)
    _, losses = head(features, targets)
    torch.testing.assert_close(losses, {"loss_sem_seg": expected})
    # Another task's loss, by name.
    head.set_loss("loss_depth", lambda output, target: (output[:, 0] - target).abs().mean())
    _, losses = head(features, targets.float())
    torch.testing.assert_close(losses, {"loss_depth": (full[:, 0] - targets).abs().mean()})


def test_the_head_on_another_backbone():
    backbone = ResNet(18, stem_channels=8, res2_channels=4, out_features=STAGES)
    head = MLPHead(
        backbone.output_shape(), in_features=STAGES, num_classes=2, hidden_channels=4, mlp_norm=True
    )
    model = SemanticSegmentor(backbone=backbone, sem_seg_head=head)
    inputs = [
        {"image": torch.rand(3, 33, 47), "sem_seg": torch.zeros(33, 47, dtype=torch.int64)}
    ] * 2
    model(inputs)["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters())
    (output,) = model.eval()(inputs[:1])
    assert output["sem_seg"].shape == (2, 33, 47)
    with pytest.raises(ValueError, match=r"needs the backbone outputs p2, but .* returns res2"):
        MLPHead(backbone.output_shape(), in_features=("p2", "res3"), num_classes=2)


def test_other_heads_on_mit():
    model = build_segmentor("deeplabv3", "mit_b0", num_classes=2)
    assert [conv.dilation[0] for conv in model.sem_seg_head.aspp.convs] == [1, 3, 6, 9]
    assert build_segmentor("segformer", "resnet18", num_classes=2).sem_seg_head.aux is None
