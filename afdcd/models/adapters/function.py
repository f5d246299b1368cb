"""A function of the user's own that returns a model."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

from torch import nn

from afdcd.models.adapters.adapter import Adapter
from afdcd.models.adapters.registry import ADAPTERS
from afdcd.models.adapters.source import FUNCTION, Source
from afdcd.models.weights.read import (
    CheckpointError,
    file_problem,
    model_entries,
    read_checkpoint,
)
from afdcd.utils.user_modules import SUFFIX, file_module_name, import_user_module


@ADAPTERS.register(FUNCTION)
class FunctionAdapter(Adapter):
    """What ``package.module:function`` or ``file.py:function`` returns; it runs that code.

    The function takes nothing, or the run's config where it has a parameter without a default. It
    returns a module from images [N, 3, H, W] to logits, or to a dict of maps. With
    ``TEACHER.WEIGHTS`` a checkpoint is loaded into it, all of it.
    """

    @classmethod
    def problems(cls, source: Source) -> list[str]:
        module, _, _ = source.place.rpartition(":")
        problems = []
        if module.endswith(SUFFIX):
            if not Path(module).is_file():
                problems.append(f"{source.name}: no file {Path(module).absolute()}")
        elif not _is_found(module):
            problems.append(
                f"{source.name}: no module {module}: install it, add its folder to PYTHONPATH, or "
                f"name a file ({module.rpartition('.')[2]}{SUFFIX}:function). Names of other kinds "
                "begin with hf: or smp:"
            )
        if source.weights and (problem := file_problem(source.weights)):
            problems.append(f"MODEL.DISTILLER.TEACHER.WEIGHTS: {problem}")
        return problems

    @classmethod
    def files(cls, source: Source) -> list[Path]:
        """The function's file and the weights; not what the file imports."""
        module, _, _ = source.place.rpartition(":")
        own = module if module.endswith(SUFFIX) else _file_of(module)
        return [Path(path) for path in (own, source.weights) if path]

    @classmethod
    def load(cls, source: Source) -> FunctionAdapter:
        module, _, name = source.place.rpartition(":")
        try:
            function = getattr(_imported(module), name, None)
            if not callable(function):
                raise CheckpointError(f"{source.name}: {module} has no function {name}")
            arguments = inspect.signature(function).parameters.values()
            takes_config = any(
                a.default is a.empty and a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)
                for a in arguments
            )
            model = function(source.config) if takes_config else function()
        except CheckpointError:
            raise
        # Anything may be raised by others' code, a script's end among it.
        except (Exception, SystemExit) as error:
            raise CheckpointError(
                f"{source.name} failed ({type(error).__name__}: {str(error)[:300]})"
            ) from error
        if not isinstance(model, nn.Module):
            raise CheckpointError(
                f"{source.name} returned a {type(model).__name__}; expected a torch.nn.Module from "
                "images [N, 3, H, W] to logits or a dict of maps"
            )
        if source.weights:
            load_all(model, source.weights)
        return cls(source, model, cls.image_defaults(source))


def load_all(model: nn.Module, path: str) -> None:
    """Load a checkpoint's tensors into a model, every entry of it.

    Raises:
        CheckpointError: the file can't be read, or its entries aren't the model's.
    """
    entries = model_entries(read_checkpoint(path), path)
    try:
        model.load_state_dict(entries, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(
            f"{path} doesn't fit {type(model).__name__}: {' '.join(lines)[:500]}"
        ) from error


def _imported(module: str) -> ModuleType:
    if module.endswith(SUFFIX):
        return import_user_module(file_module_name(Path(module).resolve()))
    return importlib.import_module(module)


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _file_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return spec.origin if spec is not None and spec.has_location and spec.origin else ""
