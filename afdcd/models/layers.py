"""Building blocks under Detectron2's names: a convolution owns its normalization as ``.norm``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

NORMS: dict[str, Callable[[int], nn.Module]] = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}
Norm = str | Callable[[int], nn.Module]


class ShapeSpec(NamedTuple):
    """A backbone's description of an output; fields as in ``detectron2.layers.ShapeSpec``."""

    channels: int
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class FeatureMaps(dict[str, torch.Tensor]):
    """A backbone's outputs by name, and the height and width of the image they were made from.

    With ``align_corners=True`` a map of 9 rows may stand for an image of 65 to 72 rows, so a head
    can't tell the size to predict at from the map alone.
    """

    def __init__(self, maps: dict[str, torch.Tensor], image_size: tuple[int, int]) -> None:
        super().__init__(maps)
        self.image_size = image_size


def build_norm(norm: Norm, channels: int) -> nn.Module:
    """Build the normalization named in `NORMS`, or call ``norm`` with the channels."""
    if callable(norm):
        return norm(channels)
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}")
    return NORMS[norm](channels)


class ConvNorm(nn.Conv2d):
    """Convolution without bias, normalization, and optionally ReLU or ReLU6.

    State-dict names ``weight`` and ``norm.*`` are those of ``detectron2.layers.Conv2d``. Padding
    keeps the size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm = "BN",
        activation: Callable[[torch.Tensor], torch.Tensor] | None = F.relu,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm = build_norm(norm, out_channels)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(super().forward(x))
        return x if self.activation is None else self.activation(x)


class SameConvNorm(ConvNorm):
    """`ConvNorm` with TensorFlow's "same" padding: a stride's padding depends on the input's size.

    The output has ceil(H / stride) rows. Where the padding is odd, the bottom and the right get one
    more, so that a strided convolution sees other pixels than with PyTorch's symmetric padding.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == (1, 1):
            return super().forward(x)  # where both paddings are the same
        padding: list[int] = []
        for axis in (1, 0):  # the width's comes first
            size, stride = x.shape[axis - 2], self.stride[axis]
            extent = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            padding += [total // 2, total - total // 2]
        x = F.conv2d(
            F.pad(x, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )
        x = self.norm(x)
        return x if self.activation is None else self.activation(x)


def normalize_as_in_tensorflow(module: nn.Module) -> None:
    """Give every BatchNorm below ``module`` the epsilon 1e-3, and the momentum 0.01.

    MobileNetV3 and EfficientNet were trained so (there the momentum is called a decay of 0.99).
    """
    for child in module.modules():
        for name, value in {"eps": 1e-3, "momentum": 0.01}.items():
            if hasattr(child, "running_var") and hasattr(child, name):
                setattr(child, name, value)


def init_convolutions(module: nn.Module) -> None:
    """He initialization (normal, fan-out, ReLU) of every convolution below ``module``."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")


def stage_dilations(output_stride: int) -> dict[str, tuple[int, int, int]]:
    """Stride and dilations of the stages res2 to res5 for an output stride.

    Where a stage would exceed the output stride, it loses its stride and doubles the dilation; its
    first block keeps the dilation of the stage before, since it has seen the undilated grid.

    Returns:
        ``{stage: (stride of the first block, dilation of the first block, dilation of the rest)}``
        counted from stride 4, which the stem and res2 reach together.

    Raises:
        ValueError: an output stride other than 8, 16 or 32.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32; got {output_stride}")
    stages = {"res2": (1, 1, 1)}
    stride, dilation = 4, 1
    for stage in ("res3", "res4", "res5"):
        if stride < output_stride:
            stride *= 2
            stages[stage] = (2, dilation, dilation)
        else:
            stages[stage] = (1, dilation, 2 * dilation)
            dilation *= 2
    return stages


def normalizes_batch(module: nn.Module) -> bool:
    """Whether ``module`` has a BatchNorm that takes its statistics from the batch."""
    return any(
        part.training and isinstance(part, nn.modules.batchnorm._BatchNorm)
        for part in module.modules()
    )
