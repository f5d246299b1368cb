"""SegFormer's checkpoints in the names of five codebases."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from afdcd.models import load_weights
from afdcd.models.weights import CheckpointError

from helpers.segformer_names import (
    PREFIXES,
    TITLES,
    backbone_entries,
    head_entries,
    small_segformer,
    whole_network,
)

# A few names of each, as they stand in files.
KNOWN = {
    "published": (
        "backbone.patch_embed1.proj.weight",
        "backbone.block2.1.attn.kv.bias",
        "backbone.norm4.weight",
        "decode_head.linear_c4.proj.weight",
        "decode_head.linear_fuse.bn.running_mean",
        "decode_head.linear_pred.bias",
    ),
    "smp": (
        "encoder.patch_embed1.norm.weight",
        "encoder.block1.0.mlp.dwconv.dwconv.weight",
        "decoder.mlp_stage.0.linear.weight",
        "decoder.fuse_stage.1.running_var",
        "segmentation_head.0.weight",
    ),
    "on disk": (
        "segformer.encoder.patch_embeddings.0.layer_norm.weight",
        "segformer.encoder.block.0.0.attention.self.query.weight",
        "segformer.encoder.block.0.0.attention.output.dense.bias",
        "segformer.encoder.layer_norm.3.bias",
        "decode_head.linear_c.0.proj.weight",
        "decode_head.batch_norm.running_mean",
    ),
    "in memory": (
        "segformer.stages.0.blocks.0.attention.q_proj.weight",
        "segformer.stages.0.blocks.0.attention.sequence_reduction.layer_norm.bias",
        "decode_head.linear_projections.3.proj.weight",
    ),
    "mmsegmentation": (
        "backbone.layers.0.1.0.attn.attn.in_proj_weight",
        "backbone.layers.1.1.1.ffn.layers.4.weight",
        "backbone.layers.2.2.weight",
        "decode_head.convs.0.bn.running_mean",
        "decode_head.fusion_conv.conv.weight",
        "decode_head.conv_seg.bias",
    ),
}


def models(dialect: str):
    """A model whose entries are translated, and another to load them."""
    mlp_norm = dialect == "mmsegmentation"
    return small_segformer(mlp_norm=mlp_norm), small_segformer(mlp_norm=mlp_norm, seed=1)


def outputs(model, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.sem_seg_head.layers(model.backbone(x))


@pytest.mark.parametrize("dialect", TITLES)
def test_whole_networks(dialect: str):
    source, model = models(dialect)
    state = whole_network(source, dialect)
    assert set(KNOWN[dialect]) <= state.keys()
    report = load_weights(model, state)
    assert (report.naming, report.part, report.left_out) == (TITLES[dialect], "model", [])
    assert report.loaded == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    x = torch.rand(1, 3, 45, 70)
    assert torch.equal(outputs(model, x), outputs(source, x))


@pytest.mark.parametrize("dialect", TITLES)
@pytest.mark.parametrize("prefixed", [True, False])
def test_backbones_alone(dialect: str, prefixed: bool):
    source, model = models(dialect)
    prefix = PREFIXES[dialect] if prefixed or dialect == "smp" else ""
    state = backbone_entries(dict(source.state_dict()), dialect, prefix)
    classifier = "head" if dialect == "published" else "classifier"
    state |= {f"{classifier}.weight": torch.zeros(5, 16), f"{classifier}.bias": torch.zeros(5)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, state)
    assert report.part == "backbone" and report.naming == TITLES[dialect]
    assert report.left_out == [f"{classifier}.weight", f"{classifier}.bias"]
    assert "left out 2, such as" in str(report)
    for name, value in model.state_dict().items():
        other = source.state_dict() if name.startswith("backbone.") else before
        assert torch.equal(value, other[name]), name
    with pytest.raises(CheckpointError, match="holds a backbone alone"):
        load_weights(model, state, part="model")


@pytest.mark.parametrize("dialect", TITLES)
def test_an_entry_too_many_or_too_few(dialect: str):
    source, model = models(dialect)
    state = whole_network(source, dialect)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in state:
        if name.endswith("num_batches_tracked"):
            continue
        less = {key: value for key, value in state.items() if key != name}
        with pytest.raises(CheckpointError, match="missing: "):
            load_weights(model, less, part="model")
    with pytest.raises(CheckpointError, match=r"unexpected: .*surplus"):
        load_weights(model, state | {f"{PREFIXES[dialect]}surplus": torch.zeros(1)})
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_half_a_pair_is_called_by_its_own_name():
    source, model = models("in memory")
    state = whole_network(source, "in memory")
    del state["segformer.stages.0.blocks.0.attention.k_proj.weight"]
    message = r"missing: backbone.res2.blocks.0.attn.kv.weight; 1 unexpected: .*v_proj.weight"
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, state)


def test_mmsegmentations_head_needs_its_norms():
    source, _ = models("mmsegmentation")
    state = whole_network(source, "mmsegmentation")
    with pytest.raises(CheckpointError, match=r"set MODEL\.SEM_SEG_HEAD\.MLP_NORM True"):
        load_weights(small_segformer(), state)
    report = load_weights(small_segformer(), state, part="backbone")
    assert len(report.left_out) == len(head_entries(dict(source.state_dict()), "mmsegmentation"))


def test_what_the_published_head_never_uses():
    source, model = models("published")
    state = whole_network(source, "published")
    state |= {"decode_head.conv_seg.weight": torch.zeros(3, 6, 1, 1)}
    assert load_weights(model, state).left_out == ["decode_head.conv_seg.weight"]


def test_files_of_wrappers_and_safetensors(tmp_path):
    source, model = models("published")
    state = {f"module.{n}": v for n, v in whole_network(source, "published").items()}
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, tmp_path / "segformer.pth")
    assert load_weights(model, tmp_path / "segformer.pth").part == "model"
    state = whole_network(source, "on disk")
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in state.items()}, tmp_path / "model.safetensors"
    )
    assert load_weights(model, tmp_path / "model.safetensors").naming == TITLES["on disk"]


def test_another_variant():
    state = backbone_entries(dict(small_segformer().state_dict()), "published")
    deeper = {name.replace("block1.0.", "block1.1."): v for name, v in state.items()}
    message = "unexpected: block1.1.*Its network differs from the model in kind, depth or stem"
    with pytest.raises(CheckpointError, match=message):
        load_weights(small_segformer(), state | deeper)
