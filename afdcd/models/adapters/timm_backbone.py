"""Backbones of timm, by the name ``timm:NAME``."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.backbones.registry import BACKBONES, Backbone
from afdcd.models.backbones.staged import STAGES
from afdcd.models.layers import ShapeSpec
from afdcd.models.weights.names import NameFormat, recognise
from afdcd.utils.memory_format import in_device_format

logger = logging.getLogger(__name__)

FAMILY = "timm:"
# How images of any size are allowed: the first of these that a model takes is used.
OPEN_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)


def import_timm() -> Any:
    """The module ``timm``.

    Raises:
        ValueError: it isn't installed, or it or the torchvision that it imports doesn't fit.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{FAMILY}NAME needs timm, and there is no module {error.name}: "
            "pip install -e '.[timm]' (or pip install timm)"
        ) from error
    except Exception as error:  # a torchvision that doesn't fit raises anything
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"{FAMILY}NAME needs timm, which can't be imported ({type(error).__name__}: {reason}): "
            f"it imports torchvision, which must be the one that belongs to PyTorch "
            f"{torch.__version__}. Install a pair that belongs together"
        ) from error
    return timm


@BACKBONES.register(FAMILY)
class TimmBackbone(Backbone):
    """Any of timm's networks that has ``features_only``.

    The last map is called res5, the one before it res4, and so on down to res2; other maps aren't
    returned, and where several have one stride, above the last ones', the last of them counts. So
    the names say strides 4, 8, 16 and 32 for most networks. Of a plain vision transformer, whose
    maps all have one stride (16, for example), timm gives the last ones: res3, res4 and res5.

    Images of any size are taken: they are padded at the bottom and right, inside, with 0 (which is
    the mean colour), and maps are cropped to ceil(H / stride) rows.

    Args:
        name: timm's, with or without a tag: ``convnext_tiny`` or ``convnext_tiny.fb_in22k``.
        pretrained: whether timm fetches its weights.
        output_stride: of the last map: 8, 16 or 32 where timm's model takes a choice, else its own.

    Attributes:
        pixel_mean, pixel_std: of the weights that timm has, for RGB images in 0..255.

    Raises:
        ValueError: timm can't be imported, has no such model or no weights for it, its model can't
            be a backbone, or has another output stride and no choice.
    """

    def __init__(self, name: str, *, pretrained: bool = False, output_stride: int = 32) -> None:
        super().__init__()
        self.timm_name = name
        self.body = _create(name, pretrained, output_stride)
        info = self.body.feature_info
        strides, channels = list(info.reduction()), list(info.channels())
        if strides[-1] != output_stride:
            raise ValueError(
                f"{FAMILY}{name} can't have output stride {output_stride}: its maps have the "
                f"strides {strides}. Set MODEL.BACKBONE.OUTPUT_STRIDE (output_stride) to "
                f"{strides[-1]}"
            )
        self._divisor = max(strides)
        self._channels_at_end = self._probe(strides, channels)
        kept = [
            index
            for index, stride in enumerate(strides)
            if stride == strides[-1] or stride != strides[index + 1]
        ][-len(STAGES) :]
        self._kept = dict(zip(STAGES[-len(kept) :], kept, strict=True))
        self._shapes = {
            stage: ShapeSpec(channels=channels[index], stride=strides[index])
            for stage, index in self._kept.items()
        }
        for stage in self._kept:
            self.add_module(stage, nn.Identity())  # what taps such as backbone.res5 name
        self.pixel_mean, self.pixel_std = _normalization(self.body.pretrained_cfg)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Constructor arguments from ``MODEL.BACKBONE`` and ``MODEL.TIMM``.

        Where ``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` aren't those of timm's weights, a log line says
        so: a warning where the weights are fetched.
        """
        model = cfg.MODEL
        name = model.BACKBONE.NAME.removeprefix(FAMILY)
        pretrained = model.TIMM.PRETRAINED and not model.WEIGHTS
        if text := _other_normalization(
            name, cfg.INPUT.FORMAT, (model.PIXEL_MEAN, model.PIXEL_STD)
        ):
            logger.log(logging.WARNING if pretrained else logging.INFO, text)
        return {
            "name": name,
            "pretrained": pretrained,
            "output_stride": model.BACKBONE.OUTPUT_STRIDE,
        }

    def freeze(self, at: int) -> None:
        """Raise ValueError unless ``at`` is 0: which modules make a stage is timm's secret."""
        if at:
            raise ValueError(
                f"MODEL.BACKBONE.FREEZE_AT is {at}, but {FAMILY}... trains all of its stages: set "
                "it to 0"
            )

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def feature_maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = x.shape[-2:]
        step = self._divisor
        found = self.body(F.pad(x, (0, -width % step, 0, -height % step)))
        maps = {}
        for stage, index in self._kept.items():
            features = found[index].permute(0, 3, 1, 2) if self._channels_at_end else found[index]
            stride = self._shapes[stage].stride or 1
            features = features[..., : -(-height // stride), : -(-width // stride)]
            maps[stage] = getattr(self, stage)(in_device_format(features))
        return maps

    def naming(self, names: Iterable[str]) -> NameFormat | None:
        """The naming of a checkpoint's entries: this package's, or timm's own of this network.

        Entries of the latter that have no place in the backbone, such as a classifier's, are left
        out; that every entry of the backbone is there is checked as for any checkpoint.
        """
        names = list(names)
        if any(name.startswith(("backbone.", "sem_seg_head.")) for name in names):
            return recognise(names)
        own = self.body.state_dict().keys()
        places = {name: place for name in names if (place := _place(name, own)) is not None}
        left_out = [re.escape(name) for name in names if name not in places]
        return NameFormat(
            f"timm's {self.timm_name}",
            lambda _: True,
            ((rf"^({'|'.join(left_out)})$", None), (r"^.+$", lambda m: places[m[0]])),
        )

    def _probe(self, strides: Sequence[int], channels: Sequence[int]) -> bool:
        """Whether the maps are [N, h, w, C] rather than [N, C, h, w], by those of a small image."""
        height, width = 2 * self._divisor, 3 * self._divisor
        device = next(self.body.parameters()).device
        self.body.eval()
        try:
            with torch.no_grad():
                maps = self.body(torch.zeros(1, 3, height, width, device=device))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"{FAMILY}{self.timm_name} doesn't take an image of {height}x{width} pixels, so it "
                f"can't be a backbone for images of any size ({reason})"
            ) from error
        self.body.train()
        found = [tuple(features.shape) for features in maps]
        sizes = [(height // stride, width // stride) for stride in strides]
        for last in (False, True):
            wanted = [
                (1, *size, count) if last else (1, count, *size)
                for size, count in zip(sizes, channels, strict=True)
            ]
            if found == wanted:
                return last
        raise ValueError(
            f"{FAMILY}{self.timm_name} gives maps of the shapes {found}, which its feature_info "
            f"(channels {list(channels)}, strides {list(strides)}) doesn't say: it can't be a "
            "backbone"
        )


def _create(name: str, pretrained: bool, output_stride: int) -> Any:
    """Timm's model with ``features_only``."""
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has them all"
        raise ValueError(f"MODEL.BACKBONE.NAME: timm has no model {name!r}; {hint}")
    for options in ({"output_stride": output_stride}, *OPEN_SIZE):
        try:
            return timm.create_model(name, pretrained=pretrained, features_only=True, **options)
        except (
            TypeError,
            AssertionError,
        ) as error:  # a setting, or its value, that it doesn't take
            refused = isinstance(error, AssertionError) or "unexpected keyword" in str(error)
            if not (options and refused):
                raise ValueError(_failure(name, pretrained, error)) from error
        except Exception as error:  # of the network, the hub, or a model without features_only
            raise ValueError(_failure(name, pretrained, error)) from error
    raise AssertionError("the last options are none")


def _failure(name: str, pretrained: bool, error: Exception) -> str:
    reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
    if not pretrained:
        return f"{FAMILY}{name} can't be a backbone ({reason})"
    return (
        f"{FAMILY}{name} can't be built with its weights ({reason}). Where they can't be fetched, "
        "name a file with them in MODEL.WEIGHTS; where trained weights are loaded anyway, set "
        "MODEL.TIMM.PRETRAINED False"
    )


def _place(name: str, own: Iterable[str]) -> str | None:
    """The name here of an entry of timm's whole network; None where it has no place.

    With ``features_only``, timm joins the first parts of names by ``_``, or puts the whole network
    under ``model``.
    """
    parts = name.split(".")
    candidates = [f"model.{name}"]
    candidates += [".".join(["_".join(parts[:n]), *parts[n:]]) for n in range(1, len(parts))]
    return next((f"backbone.body.{n}" for n in candidates if n in own), None)


def _normalization(settings: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, RGB in 0..255, of timm's ``pretrained_cfg``."""
    mean, std = (tuple(round(255 * value, 3) for value in settings[key]) for key in ("mean", "std"))
    return mean, std


def _other_normalization(
    name: str, image_format: str, configured: tuple[Sequence[float], Sequence[float]]
) -> str:
    """What to set where a config's mean and deviation aren't those of timm's weights."""
    try:
        settings = import_timm().get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:  # there is no such tag
        raise ValueError(f"MODEL.BACKBONE.NAME: timm: {error}") from error
    if settings is None:
        return ""
    wanted = _normalization(settings.to_dict())
    if image_format == "BGR":
        wanted = wanted[0][::-1], wanted[1][::-1]
    pairs = [
        pair
        for ours, theirs in zip(configured, wanted, strict=True)
        for pair in zip(ours, theirs, strict=True)
    ]
    if all(abs(ours - theirs) <= 0.01 * theirs for ours, theirs in pairs):
        return ""
    return (
        f"The weights of {FAMILY}{name} were trained with MODEL.PIXEL_MEAN {list(wanted[0])} and "
        f"PIXEL_STD {list(wanted[1])} (INPUT.FORMAT {image_format}); the config has "
        f"{list(configured[0])} and {list(configured[1])}"
    )


def synchronised(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm synchronised between processes.

    Some of timm's BatchNorms hold an activation, which PyTorch's own function would drop.
    """
    if any(isinstance(module, TimmBackbone) for module in model.modules()):
        import_timm()
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
