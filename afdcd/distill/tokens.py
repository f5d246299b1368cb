"""Feature maps from a transformer's tokens: which grid of an image they lie on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

# Of a grid that is told by strides alone: class and register tokens that may stand in front.
MOST_IN_FRONT = 8


class TokenError(ValueError):
    """Nothing tells which grid tokens lie on, or they don't fit it."""


class _NoteSize:
    """A forward hook that keeps the size of a module's images. An object, for deep copies."""

    def __init__(self, grids: TokenGrids, path: str) -> None:
        self.grids, self.path = grids, path

    def __call__(self, module: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], torch.Tensor) and args[0].dim() == 4:
            self.grids.image_sizes[self.path] = (args[0].shape[-2], args[0].shape[-1])


class TokenGrids:
    """Turns tokens [N, L, C] of a model's modules into maps [N, C, H, W].

    What tells a module's grid is the nearest module around it with one of these methods, or else
    the model's ``backbone``:

    - ``token_grid(path, image_size)``, which returns (H, W) for the path of a module below it and
      the size of the images that it was given; `afdcd.models.MiT` has it;
    - ``output_shape()``, as every backbone has: of its strides s, the grid ceil(height / s) x
      ceil(width / s) with the most positions that doesn't have more than there are tokens. It has
      all but `MOST_IN_FRONT` of them at least, and more than stand in front.

    The L - H * W tokens in front (class and registers) are left out.

    Args:
        model: any module.
        paths: of the modules whose tokens may be asked for.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        modules = dict(model.named_modules())
        self._tellers = {path: _teller(modules, path) for path in paths}
        self._modules = {p: modules[p] for p in self._tellers.values() if p is not None}
        self.image_sizes: dict[str, tuple[int, int]] = {}

    def watch(self) -> list[RemovableHandle]:
        """Note the sizes of images from now on, until the handles are removed."""
        self.image_sizes = {}
        return [
            module.register_forward_pre_hook(_NoteSize(self, path))
            for path, module in self._modules.items()
        ]

    def to_map(self, path: str, tokens: torch.Tensor) -> torch.Tensor:
        """The map of a module's tokens, a view of them.

        Args:
            path: of the module.
            tokens: [N, L, C].

        Raises:
            TokenError: nothing tells their grid, or they don't fit it.
        """
        height, width = self._grid(path, tokens)
        count = tokens.shape[1]
        return tokens[:, count - height * width :].transpose(1, 2).unflatten(2, (height, width))

    def channels_first(self, path: str, features: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] of a map that may be [N, H, W, C], as of Detectron2's own ViT.

        It is taken for such a one if its second and third dimension are the grid of a stride that
        the backbone tells, and its last two aren't about the image's size divided by anything.
        Where both readings fit it stays as it is, which is wrong of, say, 64x128 positions of 256
        channels for images of 512x1024: tap another stage there.

        Args:
            path: of the module.
            features: of four dimensions; the result is a view of it.
        """
        teller = self._tellers[path]
        size = None if teller is None else self.image_sizes.get(teller)
        if size is None or not hasattr(self._modules[str(teller)], "output_shape"):
            return features
        _, first, second, third = features.shape
        known = _grids(self._modules[str(teller)], size)
        largest = max(known, default=1)  # images may be padded to multiples of it
        padded = [
            tuple(-(-side // largest) * largest // stride for side in size) for stride in known
        ]
        if (first, second) not in (*known.values(), *padded) or _about(size, (second, third)):
            return features
        return features.movedim(3, 1)

    def _grid(self, path: str, tokens: torch.Tensor) -> tuple[int, int]:
        teller = self._tellers[path]
        what = f"{path!r} gives {tokens.shape[1]} tokens (a tensor of shape {tuple(tokens.shape)})"
        size = None if teller is None else self.image_sizes.get(teller)
        if teller is None or size is None:
            raise TokenError(
                f"{what}, and nothing tells which grid they lie on: give the backbone, or another "
                "module around it that takes images [N, 3, H, W], a method token_grid(path, "
                "image_size) that returns (rows, columns)"
            )
        module: Any = self._modules[teller]
        of_images = f"{what} for images of {size[0]}x{size[1]}"
        if not hasattr(module, "token_grid"):
            return _grid_by_strides(teller, module, size, tokens.shape[1], of_images)
        height, width = module.token_grid(path[len(teller) :].lstrip("."), size)
        if height * width > tokens.shape[1] or min(height, width) < 1:
            raise TokenError(
                f"{of_images}, but token_grid of {teller or 'the model'!r} says that they lie on "
                f"{height}x{width} positions: tap a module that gives a token for each, or "
                "correct token_grid"
            )
        return height, width


def _teller(modules: dict[str, nn.Module], path: str) -> str | None:
    """The path of the module that tells the grid of another's tokens; None where none does."""
    names = path.split(".")
    around = [".".join(names[:count]) for count in range(len(names), -1, -1)]
    for candidate in (*around, "backbone"):
        module = modules.get(candidate)
        if hasattr(module, "token_grid") or hasattr(module, "output_shape"):
            return candidate
    return None


def _grid_by_strides(
    teller: str, module: Any, size: tuple[int, int], count: int, of_images: str
) -> tuple[int, int]:
    grids = _grids(module, size)
    fitting = [grid for grid in grids.values() if grid[0] * grid[1] <= count]
    if fitting:
        height, width = max(fitting, key=lambda grid: grid[0] * grid[1])
        in_front = count - height * width
        if in_front <= MOST_IN_FRONT and in_front < height * width:
            return height, width
    listed = ", ".join(
        f"{stride} ({rows}x{columns})" for stride, (rows, columns) in sorted(grids.items())
    )
    raise TokenError(
        f"{of_images}, which no stride of {teller!r} accounts for: {listed or 'it tells none'}. "
        f"Give it a method token_grid(path, image_size) that returns (rows, columns); without one, "
        f"at most {MOST_IN_FRONT} class and register tokens may stand in front"
    )


def _grids(module: Any, size: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Rows and columns of images of this size by each stride that a backbone tells."""
    strides = {shape.stride for shape in module.output_shape().values() if shape.stride}
    return {stride: (-(-size[0] // stride), -(-size[1] // stride)) for stride in strides}


def _about(size: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether a grid is an image's size divided by some stride, with up to 4 more or fewer."""
    return any(
        all(abs(side / stride - count) <= 4 for side, count in zip(size, grid, strict=True))
        for stride in range(1, max(size) + 1)
    )
