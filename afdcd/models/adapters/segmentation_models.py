"""Models of segmentation_models_pytorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from afdcd.models.adapters.adapter import Adapter, folder_files
from afdcd.models.adapters.function import load_all
from afdcd.models.adapters.images import IMAGENET
from afdcd.models.adapters.registry import ADAPTERS
from afdcd.models.adapters.source import Source
from afdcd.models.weights.read import (
    CheckpointError,
    file_problem,
    model_entries,
    read_checkpoint,
)

CONFIG = "config.json"


@ADAPTERS.register("smp")
class SegmentationModelsAdapter(Adapter):
    """``smp:folder`` of ``save_pretrained``, or ``smp:ARCH/ENCODER`` with ``TEACHER.WEIGHTS``.

    The number of classes is that of the weights. Logits are as large as the images, as the library
    gives them. Images are normalized as for ImageNet's weights unless the config says otherwise,
    since the library's files don't say.
    """

    EXTRA: ClassVar[tuple[str, str] | None] = ("segmentation_models_pytorch", "smp")

    @classmethod
    def problems(cls, source: Source) -> list[str]:
        problems, key = super().problems(source), "MODEL.DISTILLER.TEACHER.WEIGHTS"
        if source.folder is not None:
            if source.weights:
                problems.append(f"{key} {source.weights}: the folder has its own; leave it empty")
            if not (source.folder / CONFIG).is_file():
                problems.append(f"{source.name}: {source.folder.absolute()} holds no {CONFIG}")
            return problems
        if source.place.count("/") != 1:
            problems.append(
                f"{source.name}: there is no folder {Path(source.place).absolute()}, and a model "
                "without one is called smp:ARCH/ENCODER, such as smp:FPN/resnet34"
            )
        elif not source.weights:
            problems.append(f"{key} is empty: name the state dict of {source.name}")
        elif problem := file_problem(source.weights):
            problems.append(f"{key}: {problem}")
        return problems

    @classmethod
    def files(cls, source: Source) -> list[Path]:
        if source.folder is not None:
            return folder_files(source.folder)
        return [Path(source.weights)]

    @classmethod
    def load(cls, source: Source) -> SegmentationModelsAdapter:
        try:
            model = _load(source)
        except CheckpointError:
            raise
        # Unknown names and files that don't fit make the libraries raise anything.
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"{source.name} can't be loaded by segmentation_models_pytorch "
                f"({type(error).__name__}: {reason})"
            ) from error
        encoder: Any = model.encoder
        return cls(source, model, replace(IMAGENET, multiple=encoder.output_stride))


def _load(source: Source) -> nn.Module:
    import segmentation_models_pytorch as library

    if source.folder is not None:
        # Without ImageNet's weights, which would be fetched to be overwritten.
        return library.from_pretrained(str(source.folder), encoder_weights=None)
    architecture, encoder = source.place.split("/")
    entries = model_entries(read_checkpoint(source.weights), source.weights)
    heads = [
        value
        for name, value in entries.items()
        if name.startswith("segmentation_head.") and name.endswith("weight") and value.dim() == 4
    ]
    if not heads:
        raise CheckpointError(
            f"{source.weights} holds no convolution of a segmentation_head: is it the state dict "
            f"of a model of segmentation_models_pytorch? Its first entry is {next(iter(entries))}"
        )
    model = library.create_model(
        architecture, encoder_name=encoder, encoder_weights=None, classes=len(heads[-1])
    )
    load_all(model, source.weights)
    return model
