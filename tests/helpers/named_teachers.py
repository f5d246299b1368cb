"""Teachers that are other people's models, tiny ones, and configs that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

# CamVid's classes in another order and spelling, without Pavement, and two of its own.
CLASSES = [
    "road",
    "sky",
    "Sign_Symbol",
    "zebra",
    "building",
    "pole",
    "car",
    "TREE",
    "fence",
    "bicyclist",
    "train",
    "pe-destrian",
]
FUNCTION = '''"""A convolutional network of stride 4, as another project would build it."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.classifier = nn.Conv2d(24, classes, 1)

    def forward(self, images):
        features = self.stem(images).relu()
        return {"features": features, "logits": self.classifier(features)}


class Features(Net):
    def forward(self, images):
        return {"features": self.stem(images).relu()}


def net():
    torch.manual_seed(3)
    return Net(12)


def features():
    return Features(1)


def with_config(cfg):
    return Net(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


def fails():
    raise RuntimeError("no such weights")


def no_module():
    return lambda images: images
'''


class Net(nn.Module):
    """The network of `FUNCTION`, for programs."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.classifier = nn.Conv2d(24, classes, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.stem(images).relu()
        return {"features": features, "logits": self.classifier(features)}


def write_program(path: Path, *, size: tuple[int, int] | None = None) -> Path:
    """Save a `Net` as the suffix says; exported for single images of ``size`` where it is given."""
    torch.manual_seed(3)
    net = Net().eval()
    if path.suffix != ".pt2":
        torch.jit.trace(net, torch.zeros(1, 3, 32, 32), strict=False).save(str(path))
        return path
    example = torch.zeros(1, 3, *size) if size else torch.zeros(2, 3, 32, 48)
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    dynamic = None if size else ({0: batch, 2: 4 * height, 3: 4 * width},)
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=dynamic), str(path))
    return path


def write_named(configs: Path, name: str, *, losses: dict[str, Any], **teacher: Any) -> Path:
    """``named.yaml``: the tiny student with a teacher of that name.

    Args:
        configs: the folder of `helpers.tiny_runs`.
        name: ``TEACHER.NAME``.
        losses: the run's.
        teacher: further keys of ``TEACHER``.
    """
    distiller = {"TEACHER": {"NAME": name, **teacher}, "LOSSES": losses}
    content = {
        "_BASE_": "student.yaml",
        "MODEL": {"META_ARCHITECTURE": "Distiller", "DISTILLER": distiller},
    }
    path = configs / "named.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
