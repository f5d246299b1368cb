"""SegFormers in Detectron2's runtime, and MiT under its feature pyramid."""

from __future__ import annotations

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from detectron2.modeling.backbone.fpn import FPN

from afdcd.cli.predict import main as predict
from afdcd.d2.config import configure
from afdcd.d2.weights import load_model_weights
from afdcd.distill import tap_shapes
from afdcd.losses.registry import TapShape
from afdcd.models.weights import CheckpointError

from helpers.d2_runs import (
    assert_same_tensors,
    checkpoint,
    losses,
    train_detectron2,
    train_embedded,
)
from helpers.segformer_names import DEPTHS, WIDTHS, backbone_entries, small_segformer
from helpers.segformer_runs import NETWORK, STAGES, TERMS, write_segformer_runs


@pytest.fixture
def runs(configs):
    write_segformer_runs(configs)
    return configs


@pytest.mark.parametrize("name", ["segformer", "segformer_student", "segformer_teacher"])
def test_both_runtimes_end_with_the_same_weights_and_scores(runs, tmp_path, name: str):
    a = train_embedded(runs / f"{name}.yaml", tmp_path / "a")
    b = train_detectron2(runs / f"{name}.yaml", tmp_path / "b")
    for part in ("model",) if name == "segformer" else ("model", "distiller"):
        assert_same_tensors(checkpoint(tmp_path / "a")[part], checkpoint(tmp_path / "b")[part])
    ours, theirs = a["figures"]["camvid_val"], b["figures"]["camvid_val"]["sem_seg"]
    assert theirs["mIoU"] == pytest.approx(ours["mIoU"], abs=1e-6)


def test_resumes_what_the_other_runtime_began(runs, tmp_path):
    config, words = runs / "segformer_student.yaml", ["SOLVER.CHECKPOINTS_KEPT", "9"]
    train_embedded(config, tmp_path / "a", *words)
    train_embedded(config, tmp_path / "b", *words)
    for file in ("model_0000005.pth", "model_final.pth", "model_best.pth", "student_final.pth"):
        (tmp_path / "b" / file).unlink()
    (tmp_path / "b/last_checkpoint").write_text("model_0000002.pth")
    train_detectron2(config, tmp_path / "b", *words, resume=True)
    assert_same_tensors(checkpoint(tmp_path / "a")["model"], checkpoint(tmp_path / "b")["model"])


def test_predicts(runs, tmp_path):
    flags = ["--runtime", "detectron2", "--config-file", str(runs / "segformer.yaml")]
    words = ["--weights", str(tmp_path / "segformer.pth"), "--num-gpus", "0"]
    image = str(tmp_path / "data/camvid/val/00000.png")
    assert predict([*flags, *words, "--input", image, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/00000_labels.png").is_file()


def write_fpn(configs) -> None:
    content = {
        "_BASE_": "segformer.yaml",
        "MODEL": {
            "BACKBONE": {"NAME": "build_mit_fpn_backbone"},
            "FPN": {"IN_FEATURES": STAGES, "OUT_CHANNELS": 8, "NORM": "BN"},
            "SEM_SEG_HEAD": {
                "NAME": "SemSegFPNHead",
                "IN_FEATURES": ["p2", "p3", "p4", "p5"],
                "CONVS_DIM": 8,
                "NORM": "BN",
            },
        },
        "SOLVER": {"MAX_ITER": 2},
    }
    (configs / "fpn.yaml").write_text(yaml.safe_dump(content))


def test_under_detectron2s_pyramid(runs, tmp_path):
    write_fpn(runs)
    train_detectron2(runs / "fpn.yaml", tmp_path / "run")
    (terms,) = losses(tmp_path / "run")
    assert terms.keys() == {"loss_sem_seg"}
    model = build_model(configure(str(runs / "fpn.yaml"), []))
    assert type(model).__module__.startswith("detectron2.") and isinstance(model.backbone, FPN)
    assert model.state_dict().keys() == checkpoint(tmp_path / "run")["model"].keys()
    # Images of odd sizes are padded to multiples of 32; taps on tokens see the padded ones.
    (output,) = model.eval()([{"image": torch.rand(3, 50, 70) * 255, "height": 50, "width": 70}])
    assert output["sem_seg"].shape == (11, 50, 70)
    paths = ["backbone.bottom_up.res3.blocks.0", "backbone.fpn_output3"]
    shapes = tap_shapes(model, paths, size=(50, 70))
    assert shapes == {paths[0]: TapShape(8, 8, 12), paths[1]: TapShape(8, 8, 12)}


def test_a_pyramid_is_distilled_from_segformer(runs, tmp_path):
    write_fpn(runs)
    content = yaml.safe_load((runs / "segformer_teacher.yaml").read_text())
    content["_BASE_"] = ["distilled.yaml", "fpn.yaml"]
    content["MODEL"]["META_ARCHITECTURE"] = "Distiller"
    taps = [["backbone.bottom_up.res4.blocks.0", "backbone.res4.blocks.0"]]
    content["MODEL"]["DISTILLER"]["LOSSES"]["tokens"]["TAPS"] = taps
    content["MODEL"]["DISTILLER"]["LOSSES"]["afdcd"] = None
    content["INPUT"] = {"SCALE_CROP": {"SIZE": [32, 64]}}
    (runs / "pair.yaml").write_text(yaml.safe_dump(content))
    train_detectron2(runs / "pair.yaml", tmp_path / "run")
    assert losses(tmp_path / "run")[0].keys() == {
        "loss_sem_seg",
        "loss_logit_kd",
        "loss_feature_kd",
    }


def test_the_head_on_the_pyramid(runs):
    """Plain dicts: the images' size is told by the finest stage's stride."""
    write_fpn(runs)
    content = yaml.safe_load((runs / "fpn.yaml").read_text())
    content["MODEL"]["SEM_SEG_HEAD"] = {
        **NETWORK["SEM_SEG_HEAD"],
        "IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "CONVS_DIM": 8,
    }
    (runs / "fpn.yaml").write_text(yaml.safe_dump(content))
    model = build_model(configure(str(runs / "fpn.yaml"), [])).eval()
    (output,) = model([{"image": torch.rand(3, 50, 70) * 255, "height": 50, "width": 70}])
    assert output["sem_seg"].shape == (11, 50, 70)


def test_weights_for_the_backbone_below_a_pyramid(runs, tmp_path):
    write_fpn(runs)
    path = str(runs / "fpn.yaml")
    words = ["MODEL.MIT.WIDTHS", str(list(WIDTHS)), "MODEL.MIT.DEPTHS", str(list(DEPTHS))]
    model, source = build_model(configure(path, words)), small_segformer()
    entries = backbone_entries(dict(source.state_dict()), "published")
    file = str(tmp_path / "mit.pth")
    torch.save({**entries, "head.weight": torch.zeros(5, 16)}, file)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_model_weights(model, file, complete=False)
    for name, value in model.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, source.backbone.state_dict()[name]), name
    for name, value in model.state_dict().items():
        assert "bottom_up" in name or torch.equal(value, before[name]), name
    with pytest.raises(CheckpointError, match="holds a backbone alone"):
        load_model_weights(model, file, complete=True)
    # With this package's head on the pyramid, too.
    words += ["MODEL.SEM_SEG_HEAD.NAME", "MLPHead"]
    model = build_model(configure(path, words))
    load_model_weights(model, file, complete=False)
    assert torch.equal(model.backbone.bottom_up.res2.norm.bias, source.backbone.res2.norm.bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # The whole model's own file is taken as it was before.
    torch.save({"model": before}, tmp_path / "whole.pth")
    for complete in (False, True):
        load_model_weights(model, str(tmp_path / "whole.pth"), complete=complete)
        assert_same_tensors(model.state_dict(), before)


def test_terms_are_all_there(runs, tmp_path):
    train_detectron2(runs / "segformer_student.yaml", tmp_path / "run", "SOLVER.MAX_ITER", "1")
    assert losses(tmp_path / "run")[0].keys() == TERMS
