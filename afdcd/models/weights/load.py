"""Load a checkpoint into a network: all of it, or its backbone, never silently a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from afdcd.models.weights.names import FORMATS, recognise
from afdcd.models.weights.read import CheckpointError, model_entries, read_checkpoint
from afdcd.models.weights.rules import translate

BACKBONE = "backbone."
AUXILIARY = "sem_seg_head.aux."
# How many differing names an error lists.
SHOWN = 5
# Of a file without a head, where a whole model is wanted.
BACKBONE_ALONE = (
    "holds a backbone alone, such as one trained on ImageNet, and no head: it predicts nothing. "
    "Train first, or name a trained model: --weights (predict.py), MODEL.WEIGHTS (--eval-only), or "
    "MODEL.DISTILLER.TEACHER.WEIGHTS (of a teacher)"
)


@dataclass
class LoadReport:
    """What `load_weights` did.

    Attributes:
        source: the file, or "a state dict".
        naming: the codebase whose names were recognised.
        part: ``model`` or ``backbone``.
        loaded: the model's entries that were set.
        left_out: the checkpoint's entries that have no place in the model, by design: an ImageNet
            classifier, or an auxiliary head that the model was built without.
    """

    source: str
    naming: str
    part: str
    loaded: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f"loaded {len(self.loaded)} entries of the {self.part} from {self.source} "
            f"(names of {self.naming})"
        )
        if self.left_out:
            text += f"; left out {len(self.left_out)}, such as {self.left_out[0]}"
        return text


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, torch.Tensor],
    *,
    part: str = "auto",
) -> LoadReport:
    """Load a checkpoint into a segmentation network.

    Recognises the names of this package and Detectron2, of the published Af-DCD networks, of
    torchvision's, timm's and Detectron2's ImageNet backbones, and of SegFormers of the published
    code, segmentation_models_pytorch, Hugging Face and mmsegmentation.

    Args:
        model: with ``backbone`` and ``sem_seg_head``.
        source: a file that `read_checkpoint` reads, or a state dict.
        part: ``model`` (every entry must be present), ``backbone`` (the rest is left out), or
            ``auto``: the model if the checkpoint has a segmentation head, else the backbone.

    Returns:
        what was loaded.

    Raises:
        CheckpointError: the file can't be read, its names belong to no known codebase, or an entry
            is missing, unexpected or of another shape. The model is then unchanged.
    """
    if part not in ("auto", "model", "backbone"):
        raise ValueError(f"part must be auto, model or backbone; got {part!r}")
    if isinstance(source, Mapping):
        title = "a state dict"
        entries = model_entries(dict(source), title)
    else:
        title = str(source)
        entries = model_entries(read_checkpoint(source), title)

    # A backbone may know names that say nothing by themselves (timm's).
    naming = getattr(getattr(model, "backbone", None), "naming", recognise)(entries)
    if naming is None:
        raise CheckpointError(
            f"{title} has names of no known codebase, such as {', '.join(list(entries)[:3])}. "
            f"Known codebases: {'; '.join(f.title for f in FORMATS)}"
        )
    translated = {name: translate(name, naming) for name in entries}
    original = {new: name for name, new in translated.items() if new is not None}
    arranged = naming.arrange({new: entries[name] for new, name in original.items()})
    has_head = any(new.startswith("sem_seg_head.") for new in arranged)
    if part == "auto":
        part = "model" if has_head else "backbone"

    target = model.state_dict()
    wanted = {n: t for n, t in target.items() if part == "model" or n.startswith(BACKBONE)}
    if not wanted:
        raise CheckpointError(
            f"the model has no {part} to load: its entries are {list(target)[:3]}"
        )
    if part == "model" and not has_head and any(not n.startswith(BACKBONE) for n in wanted):
        raise CheckpointError(f"{title} {BACKBONE_ALONE}")
    report = LoadReport(title, naming.title, part)
    report.left_out = [name for name, new in translated.items() if new is None]
    values: dict[str, torch.Tensor] = {}
    unexpected = []
    for new, tensor in arranged.items():
        name = original.get(new, new)
        if new in wanted:
            values[new] = tensor
        elif (part == "backbone" and not new.startswith(BACKBONE)) or (
            new.startswith(AUXILIARY) and not any(n.startswith(AUXILIARY) for n in wanted)
        ):
            report.left_out.append(name)
        else:
            unexpected.append(name)
    _check(title, wanted, values, unexpected)
    model.load_state_dict(target | values)
    report.loaded = [name for name in wanted if name in values]
    return report


def _check(
    title: str,
    wanted: Mapping[str, torch.Tensor],
    values: Mapping[str, torch.Tensor],
    unexpected: list[str],
) -> None:
    """Raise CheckpointError unless ``values`` are all of ``wanted``, and nothing is left over."""
    # Checkpoints from before PyTorch 0.4.1 have no batch counters, and evaluation needs none.
    missing = [n for n in wanted if n not in values and not n.endswith("num_batches_tracked")]
    reshaped = [
        f"{n} is {tuple(values[n].shape)}, the model's {tuple(t.shape)}"
        for n, t in wanted.items()
        if n in values and values[n].shape != t.shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''}"
        for what, found in (
            ("of another shape", reshaped),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if found
    ]
    if not problems:
        return
    hint = ""
    if any("predictor" in line for line in reshaped):
        hint = (
            ". The numbers of classes differ: set MODEL.SEM_SEG_HEAD.NUM_CLASSES, or load the "
            "backbone alone (part='backbone')"
        )
    elif any(n.startswith("decode_head.convs.") for n in unexpected):
        hint = ". mmsegmentation's head has norms in its MLP: set MODEL.SEM_SEG_HEAD.MLP_NORM True"
    elif any(n.startswith("backbone.res") for n in missing) or any(
        "res" in n or "layer" in n or "block" in n for n in unexpected
    ):
        hint = ". Its network differs from the model in kind, depth or stem"
    raise CheckpointError(f"{title} doesn't fit the model: {'; '.join(problems)}{hint}")
