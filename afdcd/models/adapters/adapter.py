"""The base of all adapters: images in, logits and named maps out, in this project's protocol."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from afdcd.models.adapters.images import IMAGENET, ImageSettings
from afdcd.models.adapters.source import Source
from afdcd.models.segmentor import stack_padded, to_size
from afdcd.models.weights.read import CheckpointError

# Names of the class scores among several outputs.
LOGITS = ("logits", "sem_seg", "out")
# How the files of a saved model's folder end.
_WEIGHTS, _SETTINGS = (".safetensors", ".bin"), (".json", ".txt")


class Adapter(nn.Module):
    """Another's model that takes samples and gives what a `SemanticSegmentor` gives.

    Taps: ``sem_seg_head.predictor`` is passed by the logits, ``maps.NAME`` by each map that the
    model returns under a name (or at a place, from ``maps.0`` on), both without what images were
    padded by. ``model.PATH`` are the model's own modules, which see the padding.

    A kind of model is a subclass that is registered in `ADAPTERS`: it says what is to be known
    before anything is built (`problems`, `class_names`, `files`, `image_defaults`), and loads it.

    Args:
        source: where it is from.
        model: from normalized images [N, 3, H, W] to logits [N, K, h, w], or to a dict or tuple
            that holds maps of this form.
        defaults: how it takes its images where the config doesn't say.

    Attributes:
        EXTRA: (module to import, extra of this package's that installs it); None where none is
            needed.
        KEEPS_WEIGHTS: weights aren't cast or folded: others' code may rely on their types.
        channels: of the logits, once `probe` has run.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    EXTRA: ClassVar[tuple[str, str] | None] = None
    KEEPS_WEIGHTS: ClassVar[bool] = True

    def __init__(self, source: Source, model: nn.Module, defaults: ImageSettings) -> None:
        super().__init__()
        images = source.images.over(defaults)
        # Parameters, since a program may have none, and a model's device is that of its first.
        order = -1 if images.format != source.image_format else 1
        for name, values in (("pixel_mean", images.mean), ("pixel_std", images.std)):
            in_order = torch.tensor(values[::order], dtype=torch.float32).view(-1, 1, 1)
            setattr(self, name, nn.Parameter(in_order, requires_grad=False))
        self.reverses_channels = order == -1
        self.multiple, self.size = max(images.multiple, 1), images.size
        self.name, self.logits_stride = source.name, source.logits_stride
        self.model = model
        self.maps = nn.Module()
        self.sem_seg_head = nn.ModuleDict({"predictor": nn.Identity()})
        self.channels = 0

    # --- before it is built -----------------------------------------------------------------

    @classmethod
    def problems(cls, source: Source) -> list[str]:
        """Why it can't be loaded, as far as that can be known without loading it."""
        if cls.EXTRA is not None and importlib.util.find_spec(cls.EXTRA[0]) is None:
            module, extra = cls.EXTRA
            return [
                f"{source.name} takes the package {module}, which isn't installed: "
                f"pip install 'afdcd[{extra}]'"
            ]
        return []

    @classmethod
    def class_names(cls, source: Source) -> tuple[str, ...]:
        """Names of its classes, by its own files; empty where they don't say."""
        return ()

    @classmethod
    def files(cls, source: Source) -> list[Path]:
        """The files that what it says depends on, in an order that doesn't change."""
        return []

    @classmethod
    def image_defaults(cls, source: Source) -> ImageSettings:
        """How it takes its images, by its own files, or as most networks do.

        Raises:
            ValueError: its files should say so and don't.
        """
        return IMAGENET

    @classmethod
    def load(cls, source: Source) -> Adapter:
        """The model with its weights, on the CPU.

        Raises:
            CheckpointError: it can't be loaded.
        """
        raise NotImplementedError

    # --- running it -------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def outputs(self, images: torch.Tensor) -> Any:
        """What the model returns for normalized images [N, 3, H, W] in its own channel order."""
        return self.model(images)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
        """Logits at the images' sizes.

        Args:
            batched_inputs: a dict per image with ``image`` [3, H, W] in 0..255, optionally
                ``height`` and ``width``, the output's size.

        Returns:
            a list of ``{"sem_seg": [K, height, width]}``.
        """
        images = [item["image"].to(self.device, non_blocking=True) for item in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        batch = stack_padded(images, 0.0, 1)
        logits = self.normalized_logits(batch).float()
        logits = F.interpolate(logits, batch.shape[-2:], mode="bilinear", align_corners=False)
        return [
            {"sem_seg": to_size(result[:, : image.shape[-2], : image.shape[-1]], item)}
            for result, image, item in zip(logits, images, batched_inputs, strict=True)
        ]

    def normalized_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K, h, w] of normalized images [N, 3, H, W] in the samples' channel order.

        With a ``logits_stride``, finer ones are averaged, over the pixels of each position.
        """
        maps = self._maps(images)
        for name, module in self.maps.named_children():
            module(maps[name])
        logits = maps[_logits_name(maps)]
        if self.logits_stride:
            rows, columns = (math.ceil(side / self.logits_stride) for side in images.shape[2:])
            if logits.shape[2] > rows and logits.shape[3] > columns:
                logits = F.adaptive_avg_pool2d(logits, (rows, columns))
        return self.sem_seg_head["predictor"](logits)

    def _maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's maps by name, without those rows and columns that show padding alone.

        Where a map's cells don't divide the image, the last ones show some padding, too.
        """
        if self.reverses_channels:
            images = images.flip(1)
        if self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        padded = stack_padded(list(images), 0.0, self.multiple)
        shares = [
            used / side for used, side in zip(images.shape[2:], padded.shape[2:], strict=True)
        ]
        found = {}
        for name, maps in named_maps(self.outputs(padded), self.name).items():
            rows, columns = (
                # Rounded first: 10 cells times 40 / 64 pixels are 6.25, but 16 times 0.1 is 1.6.
                math.ceil(round(side * share, 6))
                for side, share in zip(maps.shape[2:], shares, strict=True)
            )
            found[name] = maps[..., :rows, :columns]
        return found

    def probe(self, size: tuple[int, int]) -> None:
        """Run it once on a black image, to learn its maps and the number of its channels.

        Raises:
            CheckpointError: it can't be run on images of this size, or returns no map.
        """
        self.eval()
        image = -self.pixel_mean / self.pixel_std
        try:
            with torch.no_grad():
                maps = self._maps(image.expand(-1, *size)[None])
        # Anything may be raised by others' code.
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"{self.name} can't be run on training images of {size[0]}x{size[1]} "
                f"({type(error).__name__}: {reason}). Models that take one size only, or multiples "
                "of a number, take MODEL.DISTILLER.TEACHER.IMAGES.SIZE or MULTIPLE"
            ) from error
        self.channels = maps[_logits_name(maps)].shape[1]
        for name in maps:
            self.maps.add_module(name, nn.Identity())

    def padding_of(self, paths: Sequence[str]) -> int:
        """What the images are padded to multiples of, as maps at ``paths`` show it; 1 for none."""
        inner = any(path.startswith("model.") for path in paths)
        return self.multiple if inner and not self.size else 1


def folder_files(folder: Path) -> list[Path]:
    """A saved model's files in a folder, sorted; none where its weights aren't there."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (*_WEIGHTS, *_SETTINGS))
    return files if any(path.suffix in _WEIGHTS for path in files) else []


def named_maps(output: Any, whose: str) -> dict[str, torch.Tensor]:
    """The maps [N, C, h, w] among a model's outputs, by name, or by place where it has no names.

    Raises:
        ValueError: there are none.
    """
    if isinstance(output, torch.Tensor):
        items: Any = [(LOGITS[0], output)]
    elif isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, (list, tuple)):
        items = enumerate(output)
    else:
        items = []
    found = {
        str(name).replace(".", "_"): value
        for name, value in items
        if isinstance(value, torch.Tensor) and value.dim() == 4
    }
    if not found:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else ""
        raise ValueError(
            f"{whose} returns a {type(output).__name__}{shape}; expected logits [N, K, h, w], or a "
            "dict or tuple that holds such a tensor"
        )
    return found


def _logits_name(maps: Mapping[str, torch.Tensor]) -> str:
    """The name of the class scores; the first map's where none is called so."""
    return next((name for name in LOGITS if name in maps), next(iter(maps)))
