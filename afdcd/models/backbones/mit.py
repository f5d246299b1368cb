"""MiT, the Mix Transformer of SegFormer, in the stages res2 to res5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.registry import BACKBONES
from afdcd.models.backbones.staged import STAGES, StagedBackbone
from afdcd.utils.memory_format import in_device_format


class Variant(NamedTuple):
    """Channels, blocks and attention heads of res2 to res5."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]


_WIDTHS, _HEADS = (64, 128, 320, 512), (1, 2, 5, 8)
VARIANTS = {
    "b0": Variant((32, 64, 160, 256), (2, 2, 2, 2), _HEADS),
    "b1": Variant(_WIDTHS, (2, 2, 2, 2), _HEADS),
    "b2": Variant(_WIDTHS, (3, 4, 6, 3), _HEADS),
    "b3": Variant(_WIDTHS, (3, 4, 18, 3), _HEADS),
    "b4": Variant(_WIDTHS, (3, 8, 27, 3), _HEADS),
    "b5": Variant(_WIDTHS, (3, 6, 40, 3), _HEADS),
}
# Of each stage: how many tokens in a row and in a column become one key and one value.
REDUCTIONS = (8, 4, 2, 1)
# Channels inside a Mix-FFN, in times the stage's. The paper's table 6 gives 8, 8, 4, 4; the numbers
# of parameters that it states, and the published weights, belong to 4 throughout.
EXPANSION = 4
# Pixels of the smallest image: res2 and res3 then have 8x8 and 4x4 tokens, which make one key.
SMALLEST = 29


class TokenNorm(nn.LayerNorm):
    """LayerNorm in its weights' precision, which is float32 under autocast, on every device.

    The patch embedding ends in one, so that the sum which the blocks add to is in float32, too.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.weight.dtype))


def to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] to [N, H * W, C], row by row.

    The maps' gradient comes in the memory format of its device's convolutions, too.
    """
    if maps.requires_grad:
        maps.register_hook(in_device_format)
    return maps.flatten(2).transpose(1, 2)


def to_map(tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[N, H * W, C] to [N, C, H, W], in the memory format of its device's convolutions."""
    return in_device_format(tokens.transpose(1, 2).unflatten(2, size))


class PatchEmbedding(nn.Module):
    """Overlapping patches: a convolution of a kernel wider than its stride, and a norm.

    Args:
        in_channels, channels: of input and output.
        kernel_size: odd; the padding makes ``(H - 1) // stride + 1`` rows of H.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = TokenNorm(channels)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """[N, in_channels, H, W] to tokens [N, h * w, channels], and (h, w)."""
        x = self.proj(x)
        return self.norm(to_tokens(x)), (x.shape[-2], x.shape[-1])


class SpatialReduction(nn.Module):
    """Makes one token of each square of ``ratio`` x ``ratio``; rows and columns left over drop."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, ratio, stride=ratio)
        self.norm = TokenNorm(channels)

    def forward(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """[N, h * w, C] to [N, (h // ratio) * (w // ratio), C]."""
        return self.norm(to_tokens(self.conv(to_map(tokens, size))))


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values are spatially reduced: equations 1 and 2 of the paper.

    Args:
        channels: C; a multiple of ``heads``.
        heads: of attention.
        ratio: of the reduction; the square root of the paper's R. 1 for none.
    """

    def __init__(self, channels: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.reduce = SpatialReduction(channels, ratio) if ratio > 1 else None

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [N, h * w, C] to the same shape."""
        reduced = x if self.reduce is None else self.reduce(x, size)
        q = self._by_head(self.q(x))
        k, v = (self._by_head(half) for half in self.kv(reduced).chunk(2, dim=-1))
        # Its softmax is computed in float32 whatever the precision of q, k and v.
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """[N, L, C] to [N, heads, L, C / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """Linear, depthwise conv3x3, GELU, linear: equation 3 of the paper.

    The convolution's zero padding takes the place of position embeddings.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [N, h * w, C] to the same shape."""
        x = self.depthwise(to_map(self.expand(x), size))
        return self.project(F.gelu(to_tokens(x)))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training a branch is left out of some images.

    Args:
        rate: share of the images; what remains is divided by 1 - rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = 1 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(kept) / kept

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class MixBlock(nn.Module):
    """Attention and Mix-FFN, each behind a norm and added to its input."""

    def __init__(
        self, channels: int, heads: int, ratio: int, *, drop_path: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = TokenNorm(channels, eps=norm_eps)
        self.attn = EfficientAttention(channels, heads, ratio)
        self.norm2 = TokenNorm(channels, eps=norm_eps)
        self.ffn = MixFFN(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [N, h * w, C] to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.ffn(self.norm2(x), size))


class MixStage(nn.Module):
    """Patch embedding, blocks and a norm: a feature map in, a feature map out.

    Args:
        embed: the patch embedding.
        blocks: `MixBlock` modules.
        norm: after the last block.
    """

    def __init__(self, embed: PatchEmbedding, blocks: list[MixBlock], norm: TokenNorm) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, size = self.embed(x)
        for block in self.blocks:
            x = block(x, size)
        return to_map(self.norm(x), size)


@BACKBONES.register("build_mit_backbone")
class MiT(StagedBackbone):
    """The Mix Transformer of SegFormer (arXiv 2105.15203): res2 to res5 at strides 4, 8, 16, 32.

    There is no stem: each stage begins with its own patch embedding. Its tokens are found at
    module paths such as ``res4.blocks.1`` or ``res3.blocks.0.norm2``.

    Args:
        variant: ``b0`` to ``b5``.
        widths: channels of the four stages, where they aren't the variant's; multiples of the
            attention heads, which are 1, 2, 5 and 8.
        depths: blocks of the four stages, where they aren't the variant's.
        drop_path: rate of stochastic depth in the last block, from 0 in the first; published: 0.1.
        norm_eps: epsilon of the blocks' and stages' norms: 1e-6 in the published code, 1e-5 in
            transformers'. The others' is 1e-5.
        out_features: the stages returned by `forward`.

    Raises:
        ValueError: an unknown variant, or settings that don't fit together.
    """

    def __init__(
        self,
        variant: str = "b0",
        *,
        widths: Sequence[int] = (),
        depths: Sequence[int] = (),
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        out_features: Sequence[str] = STAGES,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
        heads = VARIANTS[variant].heads
        widths = tuple(widths) or VARIANTS[variant].widths
        depths = tuple(depths) or VARIANTS[variant].depths
        if len(widths) != len(STAGES) or any(
            width < 1 or width % count for width, count in zip(widths, heads, strict=True)
        ):
            raise ValueError(
                f"widths takes four multiples of {', '.join(map(str, heads))}, the attention "
                f"heads of res2 to res5; got {list(widths)}"
            )
        if len(depths) != len(STAGES) or min(depths) < 1:
            raise ValueError(f"depths takes four numbers of at least 1; got {list(depths)}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be from 0 to below 1; got {drop_path}")
        self.stem = nn.Identity()
        blocks_in_all = sum(depths)
        rates = iter(drop_path * n / max(blocks_in_all - 1, 1) for n in range(blocks_in_all))
        in_channels = 3
        for stage, width, depth, count, ratio in zip(
            STAGES, widths, depths, heads, REDUCTIONS, strict=True
        ):
            first = stage == STAGES[0]
            embed = PatchEmbedding(
                in_channels, width, kernel_size=7 if first else 3, stride=4 if first else 2
            )
            blocks = [
                MixBlock(width, count, ratio, drop_path=next(rates), norm_eps=norm_eps)
                for _ in range(depth)
            ]
            self.add_module(stage, MixStage(embed, blocks, TokenNorm(width, eps=norm_eps)))
            in_channels = width
        _initialize(self)
        channels = dict(zip(STAGES, widths, strict=True))
        self.finish(channels, output_stride=32, out_features=out_features)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Constructor arguments from ``MODEL.MIT``."""
        mit = cfg.MODEL.MIT
        return {
            "variant": mit.VARIANT,
            "widths": tuple(mit.WIDTHS),
            "depths": tuple(mit.DEPTHS),
            "drop_path": mit.DROP_PATH,
            "norm_eps": mit.NORM_EPS,
            "out_features": tuple(mit.OUT_FEATURES),
        }

    def feature_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `StagedBackbone.feature_maps`. Raises ValueError for an image below 29 pixels."""
        if min(x.shape[-2:]) < SMALLEST:
            raise ValueError(
                f"MiT takes images of at least {SMALLEST}x{SMALLEST} pixels; got "
                f"{x.shape[-2]}x{x.shape[-1]}"
            )
        return super().feature_maps(x)

    def token_grid(self, path: str, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that the tokens of a module lie on, for taps.

        Args:
            path: of the module below this one, e.g. ``res4.blocks.1.norm2``.
            image_size: height and width of the images.
        """
        stage, *rest = path.split(".")
        index = STAGES.index(stage)
        stride = 4 * 2**index
        height, width = ((side - 1) // stride + 1 for side in image_size)
        if "attn" in rest and ("reduce" in rest or rest[-1] == "kv"):
            return height // REDUCTIONS[index], width // REDUCTIONS[index]
        return height, width


def _initialize(model: nn.Module) -> None:
    """As in the published code: He (fan-out) for convolutions, a narrow normal for the rest."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            fan_out = area * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
