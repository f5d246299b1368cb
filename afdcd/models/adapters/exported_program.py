"""Models of torch.export.save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from afdcd.models.adapters.program import ProgramAdapter
from afdcd.models.adapters.registry import ADAPTERS

if TYPE_CHECKING:  # its import takes long
    from torch.export import ExportedProgram


@ADAPTERS.register("pt2")
class ExportedAdapter(ProgramAdapter):
    """A program of torch.export, whose one input is the images. It has no inner taps.

    One that was exported for single images is run on each by itself.
    """

    @classmethod
    def read(cls, path: str, device: torch.device) -> nn.Module:
        from torch.export import load

        program = load(path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return _Program(program)

    def outputs(self, images: torch.Tensor) -> Any:
        assert isinstance(self.model, _Program)
        count, height, width = self.model.batch, *self.model.size
        if (height or images.shape[2], width or images.shape[3]) != tuple(images.shape[2:]):
            raise ValueError(
                f"it is exported for images of {height or 'any'}x{width or 'any'}; got "
                f"{images.shape[2]}x{images.shape[3]}: export it with dynamic sizes, or resize all "
                f"images by MODEL.DISTILLER.TEACHER.IMAGES.SIZE [{height}, {width}]"
            )
        if count in (0, len(images)):
            return super().outputs(images)
        if count != 1:
            raise ValueError(
                f"it is exported for batches of {count} images; got {len(images)}: export it for "
                "one image, or with a dynamic batch"
            )
        found = [super(ExportedAdapter, self).outputs(image[None]) for image in images]
        return _joined(found)


class _Program(nn.Module):
    """An exported program as a module.

    Attributes:
        batch, size: number, height and width of the images that it takes; 0 where it takes any.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        inputs = program.graph_signature.user_inputs
        shapes = [n.meta["val"].shape for n in program.graph.nodes if n.name in inputs]
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise ValueError(
                f"its inputs are {[list(shape) for shape in shapes]}; expected images [N, 3, H, W]"
            )
        fixed = [side if isinstance(side, int) else 0 for side in shapes[0]]
        self.batch, self.size = fixed[0], (fixed[2], fixed[3])
        self.model = program.module()

    def train(self, mode: bool = True) -> _Program:
        """Do nothing: the program is in the mode that it was exported in."""
        self.training = mode
        return self

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


def _joined(outputs: list[Any]) -> Any:
    """The outputs of single images as those of a batch."""
    first = outputs[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(outputs)
    if isinstance(first, dict):
        return {name: _joined([output[name] for output in outputs]) for name in first}
    if isinstance(first, (list, tuple)):
        return [_joined(list(parts)) for parts in zip(*outputs, strict=True)]
    return first
