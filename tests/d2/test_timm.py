"""Backbones of timm with this package's heads and with Detectron2's own parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("detectron2")
pytest.importorskip("timm")

from detectron2.modeling import FPN, build_model
from detectron2.modeling.meta_arch.semantic_seg import SemanticSegmentor, SemSegFPNHead

from afdcd.d2.config import get_cfg
from afdcd.models import EfficientNetLite, TimmBackbone, build_segmentor, load_weights

from helpers.d2_runs import (
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
    train_embedded,
)
from helpers.small_networks import TIMM, check_whole_run, write_network

SEMANTIC_FPN = {
    "BACKBONE": {"NAME": "timm:test_convnext", "OUTPUT_STRIDE": 32},
    "SEM_SEG_HEAD": {
        "NAME": "SemSegFPNHead",
        "IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "CONVS_DIM": 8,
        "NORM": "BN",
        "AUX_WEIGHT": 0.0,
    },
}


@pytest.mark.parametrize("network", TIMM)
def test_trains_resumes_evaluates_and_predicts(configs, tmp_path, network: str):
    write_network(configs, TIMM[network])
    check_whole_run(configs, tmp_path, "detectron2", "network_distilled")


@pytest.mark.parametrize("network", TIMM)
def test_both_runtimes_train_the_same(configs, tmp_path, network: str):
    write_network(configs, TIMM[network])
    config = configs / "network_distilled.yaml"
    train_embedded(config, tmp_path / "a")
    train_detectron2(config, tmp_path / "b")
    assert_same_tensors(checkpoint(tmp_path / "a")["model"], checkpoint(tmp_path / "b")["model"])


def test_with_detectron2s_head(configs, tmp_path):
    """SemSegFPNHead on the four maps, as the student of the tiny teacher."""
    write_network(configs, SEMANTIC_FPN)
    path = configs / "network_distilled.yaml"
    content = yaml.safe_load(path.read_text())
    logits = {"NAME": "logit_kd", "TAPS": [["sem_seg_head.predictor", "sem_seg_head.predictor"]]}
    content["MODEL"]["DISTILLER"] = {"LOSSES": {"logit_kd": logits}}
    path.write_text(yaml.safe_dump(content))
    check_whole_run(configs, tmp_path, "detectron2", "network_distilled")
    (terms,) = losses(tmp_path / "whole")
    assert {"loss_sem_seg", "loss_logit_kd", "loss_contrast"} <= terms.keys()


@pytest.mark.parametrize("family", ["timm", "efficientnet_lite"])
def test_under_detectron2s_fpn(family: str):
    torch.manual_seed(0)
    names = ["res2", "res3", "res4", "res5"]
    bottom_up = (
        TimmBackbone("test_convnext")
        if family == "timm"
        else EfficientNetLite(0, width_mult=0.25, output_stride=32, out_features=names)
    )
    fpn = FPN(bottom_up, names, 8, norm="BN")
    head = SemSegFPNHead(
        fpn.output_shape(),
        num_classes=3,
        conv_dims=8,
        common_stride=4,
        norm="BN",
        ignore_value=255,
    )
    model = SemanticSegmentor(
        backbone=fpn, sem_seg_head=head, pixel_mean=[127.5] * 3, pixel_std=[127.5] * 3
    )
    inputs = [
        {"image": torch.rand(3, 50, 71) * 255, "sem_seg": torch.randint(0, 3, (50, 71))}
        for _ in range(2)
    ]
    sum(model(inputs).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        results = model.eval()(inputs)
    assert results[0]["sem_seg"].shape == (3, 50, 71)


def test_in_detectron2s_own_scripts(configs):
    """A config that Detectron2 reads and builds, with no command of this package."""
    write_network(configs, TIMM["deeplabv3_convnext"])
    cfg = get_cfg()
    cfg.merge_from_file(str(configs / "network.yaml"))
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "timm:test_resnet"])
    model = build_model(cfg)
    assert model.backbone.timm_name == "test_resnet"
    assert type(model).__module__.startswith("detectron2")


def test_errors_are_those_of_the_embedded_runtime(configs, tmp_path):
    write_network(configs, TIMM["deeplabv3_convnext"])
    for name, message in (("pvt_v2_b0", "OUTPUT_STRIDE"), ("test_convnxt", "mean test_convnext")):
        with pytest.raises(Exception, match=message):
            train_detectron2(
                configs / "network.yaml", tmp_path / "run", "MODEL.BACKBONE.NAME", f"timm:{name}"
            )
    assert not list(Path(tmp_path / "run").glob("model_*"))


def test_efficientnet_lites_are_timms():
    """The same maps with the same weights: padding, dilation and normalization."""
    import timm

    torch.manual_seed(0)
    for variant, stride in ((0, 8), (2, 16), (1, 32)):
        whole = timm.create_model(f"tf_efficientnet_lite{variant}")
        for name, buffer in whole.named_buffers():
            if name.endswith("running_var"):
                torch.nn.init.uniform_(buffer, 0.001, 0.1)
        model = build_segmentor(
            "deeplabv3", f"efficientnet_lite{variant}", 3, output_stride=stride
        ).eval()
        load_weights(model, whole.state_dict())
        theirs = TimmBackbone(f"tf_efficientnet_lite{variant}", output_stride=stride).eval()
        state = whole.state_dict()
        theirs.body.load_state_dict({name: state[name] for name in theirs.body.state_dict()})
        x = torch.randn(1, 3, 65, 97)
        with torch.no_grad():
            found = model.backbone(x)["res5"]
            # Unpadded: this package's adapter pads to whole strides first.
            expected = theirs.body(x)[-1]
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
