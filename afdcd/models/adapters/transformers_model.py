"""Segmentation models of Hugging Face's transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from afdcd.models.adapters.adapter import Adapter, folder_files
from afdcd.models.adapters.images import KEY, ImageSettings
from afdcd.models.adapters.registry import ADAPTERS
from afdcd.models.adapters.source import Source
from afdcd.models.weights.read import CheckpointError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
# The largest stride of pyramids; a multiple of the patches of most transformers.
_STRIDE = 32
# The logarithm's argument is at least this: scores of classes that no query sees vanish.
_LEAST = 1e-12
_TASK = "the task is semantic"


@ADAPTERS.register("hf")
class TransformersAdapter(Adapter):
    """``hf:folder`` of ``save_pretrained``, without a network; or ``hf:ORG/NAME``.

    Models of semantic segmentation give their logits. Those of universal segmentation (Mask2Former,
    MaskFormer, OneFormer, EoMT) give the logarithm of a class's score, which is the sum over the
    queries of the class's probability (of a softmax with the class of no object, which is then
    left out) times the mask's probability; a softmax over these is each class's share.
    """

    task: torch.Tensor | None
    EXTRA: ClassVar[tuple[str, str] | None] = ("transformers", "transformers")

    @classmethod
    def problems(cls, source: Source) -> list[str]:
        problems = super().problems(source)
        if source.weights:
            problems.append(
                f"MODEL.DISTILLER.TEACHER.WEIGHTS {source.weights}: {source.name} has its own "
                "weights; leave it empty"
            )
        if source.folder is not None and not (source.folder / CONFIG).is_file():
            problems.append(f"{source.name}: {source.folder.absolute()} holds no {CONFIG}")
        if source.folder is None and source.place.count("/") != 1:
            problems.append(
                f"{source.name}: there is no folder {Path(source.place).absolute()}, and a model "
                "of the hub is called ORG/NAME"
            )
        return problems

    @classmethod
    def class_names(cls, source: Source) -> tuple[str, ...]:
        names = _content(source, CONFIG).get("id2label") or {}
        found = tuple(str(names[key]) for key in sorted(names, key=int))
        unnamed = all(name == f"LABEL_{number}" for number, name in enumerate(found))
        return () if unnamed else found

    @classmethod
    def files(cls, source: Source) -> list[Path]:
        """The folder's files; of a model of the hub those in the cache, if they are there."""
        if source.folder is not None:
            return folder_files(source.folder)
        names = (CONFIG, PROCESSOR, "model.safetensors", "pytorch_model.bin")
        return [Path(file) for name in names if (file := _hub_file(source, name))]

    @classmethod
    def image_defaults(cls, source: Source) -> ImageSettings:
        """As the image processor's settings say; RGB but for those that say otherwise."""
        content = _content(source, PROCESSOR)
        multiple = _multiple(_content(source, CONFIG))
        if not content:
            return ImageSettings(format="RGB", multiple=multiple)  # `load` asks for the rest
        # 1 / 255 is stored with rounding; images are in 0..255.
        scale = 1 / content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1
        mean, std = [0.0] * 3, [1.0] * 3
        if content.get("do_normalize", "image_mean" in content):
            mean, std = content.get("image_mean", ()), content.get("image_std", ())
        return ImageSettings(
            format="BGR" if content.get("do_flip_channel_order") else "RGB",
            mean=tuple(scale * value for value in mean),
            std=tuple(scale * value for value in std),
            multiple=multiple,
        )

    @classmethod
    def load(cls, source: Source) -> TransformersAdapter:
        images = source.images.over(cls.image_defaults(source))
        if not images.mean or not images.std:
            raise CheckpointError(
                f"{source.name} has no {PROCESSOR} that says how images are normalized: set "
                f"{KEY}.PIXEL_MEAN and PIXEL_STD (in 0..255)"
            )
        try:
            model = _load(source)
        except CheckpointError:
            raise
        # Files that don't fit make the library raise anything, missing packages among it.
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(
                f"{source.name} can't be loaded by transformers ({type(error).__name__}: {reason})"
            ) from error
        return cls(source, model.float(), images)

    def __init__(self, source: Source, model: nn.Module, defaults: ImageSettings) -> None:
        super().__init__(source, model, defaults)
        config: Any = model.config
        task = _task_tokens(source, config) if config.model_type == "oneformer" else None
        self.register_buffer("task", task, persistent=False)

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """``logits`` [N, K, h, w]."""
        arguments = {}
        if self.task is not None:
            arguments["task_inputs"] = self.task.expand(len(images), -1)
        found = self.model(pixel_values=images, **arguments)
        if "class_queries_logits" not in found:
            return {"logits": found["logits"]}
        scores = class_scores(found["class_queries_logits"], found["masks_queries_logits"])
        return {"logits": scores.clamp(min=_LEAST).log()}


def class_scores(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Class scores of every pixel [N, K, h, w], at least 0, from queries with masks.

    Args:
        classes: logits [N, Q, K + 1], of no object at the end.
        masks: logits [N, Q, h, w].
    """
    with torch.autocast(masks.device.type, enabled=False):
        probabilities = classes.float().softmax(-1)[..., :-1]
        return torch.einsum("nqk,nqhw->nkhw", probabilities, masks.float().sigmoid())


def _load(source: Source) -> nn.Module:
    import transformers as library

    local = source.folder is not None
    config = library.AutoConfig.from_pretrained(source.place, local_files_only=local)
    kinds = (
        (
            library.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
            library.AutoModelForUniversalSegmentation,
        ),
        (
            library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
            library.AutoModelForSemanticSegmentation,
        ),
    )
    kind = next((kind for mapping, kind in kinds if type(config) in mapping), None)
    if kind is None:
        raise CheckpointError(
            f"{source.name} is a {config.model_type}, which transformers has no class of semantic "
            "or universal segmentation for"
        )
    # Safetensors, or pickles read with weights_only; never the model's own code.
    model, report = kind.from_pretrained(
        source.place, local_files_only=local, trust_remote_code=False, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{source.name} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{missing[0]}: is it a model of another task?"
        )
    return model


def _multiple(config: dict[str, Any]) -> int:
    patch = config.get("patch_size") or (config.get("backbone_config") or {}).get("patch_size")
    return patch if isinstance(patch, int) and _STRIDE % patch else _STRIDE


def _task_tokens(source: Source, config: Any) -> torch.Tensor:
    """OneFormer's task [1, length], in its tokenizer's numbers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        source.place, local_files_only=source.folder is not None
    )
    found = tokenizer(
        [_TASK],
        padding="max_length",
        max_length=config.task_seq_len,
        truncation=True,
        return_tensors="pt",
    )
    return found["input_ids"] * found["attention_mask"]


def _content(source: Source, name: str) -> dict[str, Any]:
    """What a JSON file of a model holds; nothing where it isn't there.

    Raises:
        ValueError: it can't be read.
    """
    path = source.folder / name if source.folder is not None else _hub_file(source, name)
    if path is None or not Path(path).is_file():
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source.name}: {path} can't be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source.name}: {path} holds no settings by name")
    return content


def _hub_file(source: Source, name: str) -> str | None:
    """The cached file of a model of the hub, fetched where that is possible."""
    try:
        from transformers.utils import cached_file

        return cached_file(
            source.place,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (ImportError, OSError, ValueError):
        return None
