"""A small SegFormer, and its entries by the names of five other codebases, written out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from afdcd.models import MiT, MLPHead, SemanticSegmentor

WIDTHS, DEPTHS, HIDDEN, CLASSES = (4, 8, 20, 16), (1, 2, 1, 2), 6, 3
STAGES = ("res2", "res3", "res4", "res5")
# Ours inside a block, and theirs. "attn.kv" and mmsegmentation's "attn.q" are split and joined.
PUBLISHED = {
    "norm1": "norm1",
    "attn.q": "attn.q",
    "attn.kv": "attn.kv",
    "attn.reduce.conv": "attn.sr",
    "attn.reduce.norm": "attn.norm",
    "attn.proj": "attn.proj",
    "norm2": "norm2",
    "ffn.expand": "mlp.fc1",
    "ffn.depthwise": "mlp.dwconv.dwconv",
    "ffn.project": "mlp.fc2",
}
ON_DISK = {
    "norm1": "layer_norm_1",
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.reduce.conv": "attention.self.sr",
    "attn.reduce.norm": "attention.self.layer_norm",
    "attn.proj": "attention.output.dense",
    "norm2": "layer_norm_2",
    "ffn.expand": "mlp.dense1",
    "ffn.depthwise": "mlp.dwconv.dwconv",
    "ffn.project": "mlp.dense2",
}
IN_MEMORY = {
    "norm1": "layernorm_before",
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.reduce.conv": "attention.sequence_reduction.sequence_reduction",
    "attn.reduce.norm": "attention.sequence_reduction.layer_norm",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "ffn.expand": "mlp.fc1",
    "ffn.depthwise": "mlp.dwconv.dwconv",
    "ffn.project": "mlp.fc2",
}
MMSEGMENTATION = {
    "norm1": "norm1",
    "attn.reduce.conv": "attn.sr",
    "attn.reduce.norm": "attn.norm",
    "attn.proj": "attn.attn.out_proj",
    "norm2": "norm2",
    "ffn.expand": "ffn.layers.0",
    "ffn.depthwise": "ffn.layers.1",
    "ffn.project": "ffn.layers.4",
}
# Per dialect: patch embedding, its convolution and norm, blocks, inside a block, stage norm. {n} is
# a stage from 0, {m} from 1, {b} a block.
BACKBONES = {
    "published": ("patch_embed{m}", "proj", "norm", "block{m}.{b}", PUBLISHED, "norm{m}"),
    "on disk": (
        "encoder.patch_embeddings.{n}",
        "proj",
        "layer_norm",
        "encoder.block.{n}.{b}",
        ON_DISK,
        "encoder.layer_norm.{n}",
    ),
    "in memory": (
        "stages.{n}.patch_embeddings",
        "proj",
        "layer_norm",
        "stages.{n}.blocks.{b}",
        IN_MEMORY,
        "stages.{n}.layer_norm",
    ),
    "mmsegmentation": (
        "layers.{n}.0",
        "projection",
        "norm",
        "layers.{n}.1.{b}",
        MMSEGMENTATION,
        "layers.{n}.2",
    ),
}
BACKBONES["smp"] = BACKBONES["published"]
TITLES = {
    "published": "the published SegFormer",
    "smp": "segmentation_models_pytorch's SegFormer",
    "on disk": "Hugging Face's SegFormer files",
    "in memory": "transformers' SegFormer in memory",
    "mmsegmentation": "mmsegmentation's SegFormer",
}
# What stands before the backbone's names in a whole network.
PREFIXES = {
    "published": "backbone.",
    "smp": "encoder.",
    "on disk": "segformer.",
    "in memory": "segformer.",
    "mmsegmentation": "backbone.",
}
# Projection of stage {n}, fusing convolution, its norm, classifier.
HEADS = {
    "published": ("linear_c{m}.proj", "linear_fuse.conv", "linear_fuse.bn", "linear_pred"),
    "on disk": ("linear_c.{n}.proj", "linear_fuse", "batch_norm", "classifier"),
    "in memory": ("linear_projections.{n}.proj", "linear_fuse", "batch_norm", "classifier"),
    "mmsegmentation": ("convs.{n}.conv", "fusion_conv.conv", "fusion_conv.bn", "conv_seg"),
}


def small_segformer(*, mlp_norm: bool = False, seed: int = 0) -> SemanticSegmentor:
    """A model in evaluation mode whose entries all differ from how they are initialized."""
    backbone = MiT("b0", widths=WIDTHS, depths=DEPTHS)
    head = MLPHead(
        backbone.output_shape(),
        in_features=STAGES,
        num_classes=CLASSES,
        hidden_channels=HIDDEN,
        mlp_norm=mlp_norm,
    )
    model = SemanticSegmentor(backbone=backbone, sem_seg_head=head).eval()
    generator = torch.Generator().manual_seed(seed)
    for entry in model.state_dict().values():
        if entry.is_floating_point():
            entry.copy_(torch.rand(entry.shape, generator=generator) * 0.5 + 0.1)
    return model


def _entries(state: dict, ours: str, theirs: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if stem == ours:
            yield f"{theirs}.{kind}", value


def backbone_entries(state: dict, dialect: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The backbone's entries as a dialect names them, each name after ``prefix``."""
    embed, projection, embed_norm, block, inside, norm = BACKBONES[dialect]
    found: dict[str, torch.Tensor] = {}
    for n, (stage, depth) in enumerate(zip(STAGES, DEPTHS, strict=True)):
        ours = f"backbone.{stage}"

        pairs = {"embed.proj": f"{embed}.{projection}", "embed.norm": f"{embed}.{embed_norm}"}
        pairs |= {"norm": norm}
        for b in range(depth):
            mine, width = f"{ours}.blocks.{b}", WIDTHS[n]
            for kind in ("weight", "bias"):
                q, kv = (state[f"{mine}.attn.{part}.{kind}"] for part in ("q", "kv"))
                state |= {f"{mine}.attn.k.{kind}": kv[:width], f"{mine}.attn.v.{kind}": kv[width:]}
                if dialect == "mmsegmentation":
                    where = prefix + block.format(n=n, b=b)
                    found[f"{where}.attn.attn.in_proj_{kind}"] = torch.cat((q, kv))
            for part, theirs in inside.items():
                pairs[f"blocks.{b}.{part}"] = f"{block.replace('{b}', str(b))}.{theirs}"
        for mine, theirs in pairs.items():
            theirs = prefix + theirs.format(n=n, m=n + 1)
            found.update(_entries(state, f"{ours}.{mine}", theirs))
    for name, value in found.items():
        if name.endswith(("ffn.layers.0.weight", "ffn.layers.4.weight")):
            found[name] = value[:, :, None, None]  # conv1x1
    return found


def head_entries(state: dict, dialect: str) -> dict[str, torch.Tensor]:
    """The head's entries as a dialect names them."""
    ours = "sem_seg_head"
    found: dict[str, torch.Tensor] = {}
    if dialect == "smp":
        for index, stage in enumerate(reversed(STAGES)):
            theirs = f"decoder.mlp_stage.{index}.linear"
            found.update(_entries(state, f"{ours}.mlp.{stage}", theirs))
            found[f"{theirs}.weight"] = found[f"{theirs}.weight"][:, :, 0, 0]
        found.update(_entries(state, f"{ours}.fuse", "decoder.fuse_stage.0"))
        found.update(_entries(state, f"{ours}.fuse.norm", "decoder.fuse_stage.1"))
        found.update(_entries(state, f"{ours}.predictor", "segmentation_head.0"))
        return found
    projection, fuse, norm, classifier = (f"decode_head.{name}" for name in HEADS[dialect])
    for n, stage in enumerate(STAGES):
        theirs = projection.format(n=n, m=n + 1)
        found.update(_entries(state, f"{ours}.mlp.{stage}", theirs))
        if dialect == "mmsegmentation":
            bn = f"decode_head.convs.{n}.bn"
            found.update(_entries(state, f"{ours}.mlp.{stage}.norm", bn))
        else:
            found[f"{theirs}.weight"] = found[f"{theirs}.weight"][:, :, 0, 0]
    found.update(_entries(state, f"{ours}.fuse", fuse))
    found.update(_entries(state, f"{ours}.fuse.norm", norm))
    found.update(_entries(state, f"{ours}.predictor", classifier))
    if dialect == "mmsegmentation":  # the finest stage comes first
        weight = found[f"{fuse}.weight"]
        parts = [weight[:, i * HIDDEN : (i + 1) * HIDDEN] for i in range(4)]
        found[f"{fuse}.weight"] = torch.cat(parts[::-1], dim=1)
    return found


def whole_network(model: SemanticSegmentor, dialect: str) -> dict[str, torch.Tensor]:
    """All entries of a model as a dialect names them."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return backbone_entries(dict(state), dialect, PREFIXES[dialect]) | head_entries(state, dialect)
