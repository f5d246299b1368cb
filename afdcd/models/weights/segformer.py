"""The five ways in which SegFormer's checkpoints name and arrange their entries.

All five give names of this package, and beside them some that `arrange_segformer` knows: keys and
values apart (``attn.k``, ``attn.v``), or with the queries in one (``attn.qkv``), and a fusing
convolution whose input has the finest stage first (``fuse_ascending``).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from afdcd.models.weights.rules import Entries, NameFormat, Rule

_ATTENTION = "attn."
_HEAD = "sem_seg_head."
_FUSE, _ASCENDING = f"{_HEAD}fuse.weight", f"{_HEAD}fuse_ascending.weight"


def _stage(template: str, first: int) -> Callable[[re.Match[str]], str]:
    """A replacement: ``{stage}`` is the stage of the first group, of which ``first`` is res2.

    Further groups fill ``{0}``, ``{1}`` and so on.
    """

    def replace(match: re.Match[str]) -> str:
        number, *rest = match.groups()
        return template.format(*rest, stage=f"res{int(number) - first + 2}")

    return replace


_EMBED, _BLOCK = "backbone.{stage}.embed.", "backbone.{stage}.blocks.{0}."
_NORM, _MLP = "backbone.{stage}.norm.", f"{_HEAD}mlp.{{stage}}."
_CLASSIFIERS = (r"^(backbone\.|encoder\.)?head\.", r"^(classifier|classification_head)\.")
_NO_PLACE: tuple[Rule, ...] = tuple((pattern, None) for pattern in _CLASSIFIERS)

# Inside a block, where it was named as in the published code.
_PUBLISHED_BLOCK: tuple[Rule, ...] = (
    (r"(blocks\.\d+\.)attn\.sr\.", r"\1attn.reduce.conv."),
    (r"(blocks\.\d+\.)attn\.norm\.", r"\1attn.reduce.norm."),
    (r"(blocks\.\d+\.)mlp\.fc1\.", r"\1ffn.expand."),
    (r"(blocks\.\d+\.)mlp\.dwconv\.dwconv\.", r"\1ffn.depthwise."),
    (r"(blocks\.\d+\.)mlp\.fc2\.", r"\1ffn.project."),
)


def _published_backbone(prefix: str) -> tuple[Rule, ...]:
    return (
        *_NO_PLACE,
        (rf"^{prefix}patch_embed(\d)\.", _stage(_EMBED, first=1)),
        (rf"^{prefix}block(\d)\.(\d+)\.", _stage(_BLOCK, first=1)),
        (rf"^{prefix}norm(\d)\.", _stage(_NORM, first=1)),
        *_PUBLISHED_BLOCK,
    )


_PUBLISHED: tuple[Rule, ...] = (
    *_published_backbone(r"(?:backbone\.)?"),
    (r"^decode_head\.linear_c(\d)\.proj\.", _stage(_MLP, first=1)),
    (r"^decode_head\.linear_fuse\.conv\.", f"{_HEAD}fuse."),
    (r"^decode_head\.linear_fuse\.bn\.", f"{_HEAD}fuse.norm."),
    (r"^decode_head\.linear_pred\.", f"{_HEAD}predictor."),
    (r"^decode_head\.conv_seg\.", None),  # of its base class; never used
)
_SMP: tuple[Rule, ...] = (
    *_published_backbone(r"encoder\."),
    # Numbered from the coarsest stage.
    (r"^decoder\.mlp_stage\.(\d)\.linear\.", lambda m: f"{_HEAD}mlp.res{5 - int(m[1])}."),
    (r"^decoder\.fuse_stage\.0\.", f"{_HEAD}fuse."),
    (r"^decoder\.fuse_stage\.1\.", f"{_HEAD}fuse.norm."),
    (r"^segmentation_head\.0\.", f"{_HEAD}predictor."),
)
_HUGGING_FACE_HEAD: tuple[Rule, ...] = (
    (r"^decode_head\.(?:linear_c|linear_projections)\.(\d)\.proj\.", _stage(_MLP, first=0)),
    (r"^decode_head\.linear_fuse\.", f"{_HEAD}fuse."),
    (r"^decode_head\.batch_norm\.", f"{_HEAD}fuse.norm."),
    (r"^decode_head\.classifier\.", f"{_HEAD}predictor."),
)
_HUGGING_FACE: tuple[Rule, ...] = (
    *_NO_PLACE,
    (r"^(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.", _stage(_EMBED, first=0)),
    (r"^(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.", _stage(_BLOCK, first=0)),
    (r"^(?:segformer\.)?encoder\.layer_norm\.(\d)\.", _stage(_NORM, first=0)),
    (r"(embed\.)layer_norm\.", r"\1norm."),
    (r"(blocks\.\d+\.)layer_norm_([12])\.", r"\1norm\2."),
    (r"(blocks\.\d+\.)attention\.self\.sr\.", r"\1attn.reduce.conv."),
    (r"(blocks\.\d+\.)attention\.self\.layer_norm\.", r"\1attn.reduce.norm."),
    (r"(blocks\.\d+\.)attention\.self\.query\.", r"\1attn.q."),
    (r"(blocks\.\d+\.)attention\.self\.key\.", r"\1attn.k."),
    (r"(blocks\.\d+\.)attention\.self\.value\.", r"\1attn.v."),
    (r"(blocks\.\d+\.)attention\.output\.dense\.", r"\1attn.proj."),
    (r"(blocks\.\d+\.)mlp\.dense1\.", r"\1ffn.expand."),
    (r"(blocks\.\d+\.)mlp\.dwconv\.dwconv\.", r"\1ffn.depthwise."),
    (r"(blocks\.\d+\.)mlp\.dense2\.", r"\1ffn.project."),
    *_HUGGING_FACE_HEAD,
)
_TRANSFORMERS: tuple[Rule, ...] = (
    *_NO_PLACE,
    (r"^(?:segformer\.)?stages\.(\d)\.patch_embeddings\.", _stage(_EMBED, first=0)),
    (r"^(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.", _stage(_BLOCK, first=0)),
    (r"^(?:segformer\.)?stages\.(\d)\.layer_norm\.", _stage(_NORM, first=0)),
    (r"(embed\.)layer_norm\.", r"\1norm."),
    (r"(blocks\.\d+\.)layernorm_before\.", r"\1norm1."),
    (r"(blocks\.\d+\.)layernorm_after\.", r"\1norm2."),
    (
        r"(blocks\.\d+\.)attention\.sequence_reduction\.sequence_reduction\.",
        r"\1attn.reduce.conv.",
    ),
    (r"(blocks\.\d+\.)attention\.sequence_reduction\.layer_norm\.", r"\1attn.reduce.norm."),
    (r"(blocks\.\d+\.)attention\.([qkv])_proj\.", r"\1attn.\2."),
    (r"(blocks\.\d+\.)attention\.o_proj\.", r"\1attn.proj."),
    *_PUBLISHED_BLOCK,
    *_HUGGING_FACE_HEAD,
)
_MMSEGMENTATION: tuple[Rule, ...] = (
    *_NO_PLACE,
    (r"^(?:backbone\.)?layers\.(\d)\.0\.", _stage(_EMBED, first=0)),
    (r"^(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.", _stage(_BLOCK, first=0)),
    (r"^(?:backbone\.)?layers\.(\d)\.2\.", _stage(_NORM, first=0)),
    (r"(embed\.)projection\.", r"\1proj."),
    (r"(blocks\.\d+\.)attn\.attn\.in_proj_", r"\1attn.qkv."),
    (r"(blocks\.\d+\.)attn\.attn\.out_proj\.", r"\1attn.proj."),
    (r"(blocks\.\d+\.)attn\.sr\.", r"\1attn.reduce.conv."),
    (r"(blocks\.\d+\.)attn\.norm\.", r"\1attn.reduce.norm."),
    (r"(blocks\.\d+\.)ffn\.layers\.0\.", r"\1ffn.expand."),
    (r"(blocks\.\d+\.)ffn\.layers\.1\.", r"\1ffn.depthwise."),
    (r"(blocks\.\d+\.)ffn\.layers\.4\.", r"\1ffn.project."),
    (r"^decode_head\.convs\.(\d)\.conv\.", _stage(_MLP, first=0)),
    (r"^decode_head\.convs\.(\d)\.bn\.", _stage(f"{_MLP}norm.", first=0)),
    (r"^decode_head\.fusion_conv\.conv\.weight$", _ASCENDING),
    (r"^decode_head\.fusion_conv\.bn\.", f"{_HEAD}fuse.norm."),
    (r"^decode_head\.conv_seg\.", f"{_HEAD}predictor."),
)


def arrange_segformer(entries: Entries) -> Entries:
    """Join, split and reshape tensors into those of `afdcd.models.MiT` and `MLPHead`.

    What lacks its other half is left as it is, to be found unexpected.
    """
    arranged: Entries = {}
    for name, tensor in entries.items():
        stem, _, kind = name.rpartition(".")  # kind: weight or bias
        if stem.endswith(f"{_ATTENTION}qkv") and len(tensor) % 3 == 0:
            q, kv = tensor.split((len(tensor) // 3, 2 * len(tensor) // 3))
            stem = stem.removesuffix("qkv")
            arranged |= {f"{stem}q.{kind}": q, f"{stem}kv.{kind}": kv}
        elif stem.endswith(f"{_ATTENTION}k") and f"{stem[:-1]}v.{kind}" in entries:
            both = (tensor, entries[f"{stem[:-1]}v.{kind}"])
            arranged[f"{stem[:-1]}kv.{kind}"] = torch.cat(both)
        elif stem.endswith(f"{_ATTENTION}v") and f"{stem[:-1]}k.{kind}" in entries:
            continue  # joined with its keys
        elif stem.endswith(("ffn.expand", "ffn.project")) and tensor.dim() == 4:
            arranged[name] = tensor.flatten(1)  # a conv1x1 there, a linear layer here
        elif stem.startswith(f"{_HEAD}mlp.") and tensor.dim() == 2:
            arranged[name] = tensor[:, :, None, None]  # a linear layer there, a conv1x1 here
        elif name == _ASCENDING:
            stages = tensor.split(len(tensor), dim=1)
            arranged[_FUSE] = torch.cat(stages[::-1], dim=1)
        else:
            arranged[name] = tensor
    return arranged


def _begins(*beginnings: str) -> Callable[[frozenset[str]], bool]:
    return lambda names: any(name.startswith(beginnings) for name in names)


# Each with its whole networks, and with backbones alone: told by the first patch embedding.
SEGFORMER_FORMATS = (
    NameFormat(
        "the published SegFormer",
        _begins("patch_embed1.", "backbone.patch_embed1."),
        _PUBLISHED,
        arrange_segformer,
    ),
    NameFormat(
        "segmentation_models_pytorch's SegFormer",
        _begins("encoder.patch_embed1."),
        _SMP,
        arrange_segformer,
    ),
    NameFormat(
        "Hugging Face's SegFormer files",
        _begins("encoder.patch_embeddings.0.", "segformer.encoder.patch_embeddings.0."),
        _HUGGING_FACE,
        arrange_segformer,
    ),
    NameFormat(
        "transformers' SegFormer in memory",
        _begins("stages.0.patch_embeddings.", "segformer.stages.0.patch_embeddings."),
        _TRANSFORMERS,
        arrange_segformer,
    ),
    NameFormat(
        "mmsegmentation's SegFormer",
        _begins("layers.0.0.projection.", "backbone.layers.0.0.projection."),
        _MMSEGMENTATION,
        arrange_segformer,
    ),
)
