"""Distillation between Detectron2's own semantic models, and ours in its plain scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultTrainer
from detectron2.modeling import SimpleFeaturePyramid, ViT, build_model
from PIL import Image

from afdcd.d2.config import configure, get_cfg
from afdcd.d2.modeling import build_student
from afdcd.d2.shapes import register_shapes
from afdcd.distill import FeatureTaps
from afdcd.evaluation import ConfusionMatrix

from helpers.d2_runs import checkpoint, losses, train_detectron2

NARROW = {"DEPTH": 50, "STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 2}
DEEPLAB = {
    "BACKBONE": {"NAME": "build_resnet_deeplab_backbone", "FREEZE_AT": 0},
    "RESNETS": {
        **NARROW,
        "NORM": "BN",
        "OUT_FEATURES": ["res2", "res4", "res5"],
        "RES5_DILATION": 2,
        "RES5_MULTI_GRID": [1, 2, 4],
    },
    "SEM_SEG_HEAD": {
        "NAME": "DeepLabV3Head",
        "IN_FEATURES": ["res5"],
        "CONVS_DIM": 8,
        "ASPP_CHANNELS": 8,
        "COMMON_STRIDE": 16,
        "NORM": "BN",
        "AUX_WEIGHT": 0.0,
    },
}
PLUS = {
    **DEEPLAB,
    "SEM_SEG_HEAD": {
        **DEEPLAB["SEM_SEG_HEAD"],
        "NAME": "DeepLabV3PlusHead",
        "IN_FEATURES": ["res2", "res5"],
        "PROJECT_FEATURES": ["res2"],
        "PROJECT_CHANNELS": [4],
        "COMMON_STRIDE": 4,
    },
}
FPN = {
    "BACKBONE": {"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": 0},
    "RESNETS": {**NARROW, "NORM": "BN", "OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
    "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 8, "NORM": "BN"},
    "SEM_SEG_HEAD": {
        "NAME": "SemSegFPNHead",
        "IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "CONVS_DIM": 8,
        "NORM": "BN",
        "AUX_WEIGHT": 0.0,
    },
}
OURS: dict = {}
MODELS = {"deeplabv3": DEEPLAB, "deeplabv3plus": PLUS, "fpn": FPN, "ours": OURS}
# Student, teacher, taps of the features.
PAIRS = [
    ("ours", "deeplabv3", "backbone.res5", "backbone.res5"),
    ("ours", "deeplabv3plus", "backbone.res5", "sem_seg_head.decoder.res5.project_conv"),
    ("deeplabv3", "deeplabv3plus", "sem_seg_head.aspp", "sem_seg_head.decoder.res5.project_conv"),
    ("deeplabv3", "ours", "sem_seg_head.aspp.project", "backbone.res5"),
    ("deeplabv3plus", "deeplabv3", "backbone.res5", "sem_seg_head.aspp"),
    ("fpn", "fpn", "backbone.fpn_output4", "backbone.fpn_output4"),
    ("fpn", "deeplabv3", "sem_seg_head.p4", "backbone.res4"),
    ("ours", "fpn", "backbone.res5", "backbone.bottom_up.res5"),
]


@pytest.fixture
def write_pair(configs):
    """Write student.yaml and distilled.yaml of a pair, and the teacher's weights."""

    def write(student: str, teacher: str, student_tap: str, teacher_tap: str) -> Path:
        for name, kind in (("student", student), ("teacher", teacher)):
            path = configs / f"{name}.yaml"
            content = yaml.safe_load(path.read_text())
            model = content.setdefault("MODEL", {})
            for key, values in MODELS[kind].items():
                model.setdefault(key, {}).update(values)
            if name == "student":
                content["INPUT"]["SCALE_CROP"] = {"SIZE": [64, 64]}
                content["SOLVER"]["MAX_ITER"] = 2
            elif student != kind:
                # The teacher's file is based on the student's: start from ours.
                base = yaml.safe_load((configs / "ours.yaml").read_text())
                base["MODEL"]["RESNETS"].update(content["MODEL"]["RESNETS"])
                base["MODEL"]["SEM_SEG_HEAD"].update(content["MODEL"]["SEM_SEG_HEAD"])
                for key, values in MODELS[kind].items():
                    base["MODEL"].setdefault(key, {}).update(values)
                content = base
            path.write_text(yaml.safe_dump(content))
        torch.manual_seed(0)
        weights = build_student(configure(str(configs / "teacher.yaml"), [])).state_dict()
        torch.save({"model": weights}, configs.parent / "teacher.pth")
        path = configs / "distilled.yaml"
        content = yaml.safe_load(path.read_text())
        content["MODEL"]["DISTILLER"]["LOSSES"]["afdcd"] = {
            "NAME": "afdcd",
            "TAPS": [[student_tap, teacher_tap]],
            "REDUCTION": "mean",
            "RECONSTRUCTION_WEIGHT": 1.0,
            "POOL": 0,
            "GROUPS": 4,
            "PATCH": [2, 2],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    (configs / "ours.yaml").write_text((configs / "student.yaml").read_text())
    return write


@pytest.mark.parametrize(("student", "teacher", "student_tap", "teacher_tap"), PAIRS)
def test_pairs_train(write_pair, tmp_path, student, teacher, student_tap, teacher_tap):
    config = write_pair(student, teacher, student_tap, teacher_tap)
    results = train_detectron2(config, tmp_path / "run")
    (terms,) = losses(tmp_path / "run")
    names = {"loss_sem_seg", "loss_logit_kd", "loss_reconstruction", "loss_contrast"}
    assert names <= terms.keys() and all(0 < terms[name] < 1e6 for name in names)
    # The student's file holds what Detectron2's own model is made of, and scores the same in it.
    plain = build_model(configure(str(config.parent / "student.yaml"), [])).eval()
    assert plain.state_dict().keys() == checkpoint(tmp_path / "run")["model"].keys()
    plain.load_state_dict(checkpoint(tmp_path / "run", "student_final.pth")["model"])
    matrix = ConfusionMatrix(11)
    for path in (tmp_path / "data/camvid/val").iterdir():
        pixels = np.array(Image.open(path))[:, :, ::-1].transpose(2, 0, 1).copy()
        image = {"image": torch.from_numpy(pixels), "height": 48, "width": 64}
        with torch.no_grad():
            prediction = plain([image])[0]["sem_seg"].argmax(0).numpy()
        stored = np.array(Image.open(tmp_path / "data/camvid/valannot" / path.name))
        matrix.update(prediction, np.where(stored > 10, 255, stored))
    found = results["figures"]["camvid_val"]["sem_seg"]["mIoU"]
    assert found == pytest.approx(100 * matrix.mean_iou())


def test_taps_that_never_fire_are_refused(write_pair, tmp_path):
    config = write_pair("ours", "deeplabv3plus", "backbone.res5", "sem_seg_head.decoder")
    with pytest.raises(Exception, match=r"ran without calling sem_seg_head\.decoder"):
        train_detectron2(config, tmp_path / "run")


def test_maps_of_different_areas_are_refused(write_pair, tmp_path):
    config = write_pair("ours", "fpn", "backbone.res5", "backbone.fpn_output4")
    with pytest.raises(Exception, match=r"multiples of 1, the teacher of 32.*now 48x48"):
        train_detectron2(config, tmp_path / "run", "INPUT.SCALE_CROP.SIZE", "[48,48]")


def test_our_networks_in_detectron2s_trainer(configs, tmp_path):
    """One import, then nothing but Detectron2: its config, trainer, checkpoints and evaluator."""
    register_shapes()
    cfg = get_cfg()
    cfg.merge_from_file(str(configs / "student.yaml"))
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, ()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN = ("shapes_train_panoptic_stuffonly",)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False  # the records don't have their sizes
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    (tmp_path / "run").mkdir()
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    again = build_model(cfg)
    DetectionCheckpointer(again).load(str(tmp_path / "run/model_final.pth"))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


MIT = {
    "BACKBONE": {"NAME": "build_mit_backbone"},
    "MIT": {
        "WIDTHS": [4, 8, 20, 16],
        "DEPTHS": [1, 1, 1, 1],
        "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    },
}
MOBILE = {
    "BACKBONE": {"NAME": "build_dilated_mobilenetv3_backbone", "OUTPUT_STRIDE": 16},
    "MOBILENETV3": {"SIZE": "small", "WIDTH_MULT": 0.5, "OUT_FEATURES": ["res2", "res5"]},
}
TIMM = {"BACKBONE": {"NAME": "timm:test_resnet", "OUTPUT_STRIDE": 32}}


@pytest.mark.parametrize(
    ("backbone", "stride"), [(MIT, 32), (MOBILE, 16), (TIMM, 32)], ids=["mit", "mobile", "timm"]
)
def test_deeplabv3plus_on_our_backbones(write_pair, tmp_path, backbone: dict, stride: int):
    """Detectron2's decoder on the finest and the coarsest stage, taught by a DeepLabV3."""
    if backbone is TIMM:
        pytest.importorskip("timm")
    tap = "sem_seg_head.decoder.res5.project_conv"
    config = write_pair("ours", "deeplabv3", "backbone.res5", "backbone.res5")
    head = {**PLUS["SEM_SEG_HEAD"], "PROJECT_FEATURES": ["res2"]}
    content = yaml.safe_load(config.read_text())
    for key, values in {**backbone, "SEM_SEG_HEAD": head}.items():
        content["MODEL"].setdefault(key, {}).update(values)
    content["MODEL"]["DISTILLER"]["LOSSES"]["afdcd"]["TAPS"][0][0] = tap
    content["MODEL"]["DISTILLER"]["LOSSES"]["afdcd"]["PATCH"] = [1, 1]
    content["INPUT"] = {"SCALE_CROP": {"SIZE": [64, 64]}}
    config.write_text(yaml.safe_dump(content))
    train_detectron2(config, tmp_path / "run")
    (terms,) = losses(tmp_path / "run")
    assert {"loss_sem_seg", "loss_logit_kd", "loss_contrast"} <= terms.keys()
    plain = build_model(configure(str(config), ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]))
    assert type(plain.sem_seg_head).__name__ == "DeepLabV3PlusHead"
    assert max(s.stride for s in plain.backbone.output_shape().values()) == stride
    assert plain.state_dict().keys() == checkpoint(tmp_path / "run")["model"].keys()


def test_taps_on_detectron2s_vision_transformer():
    """Its blocks give [N, H, W, C]; a pyramid around it tells other strides, too."""
    pytest.importorskip("timm")  # of which Detectron2's has a layer
    vit = ViT(64, embed_dim=32, depth=2, num_heads=2, pretrain_img_size=64)
    model = torch.nn.Module()
    model.backbone = SimpleFeaturePyramid(vit, "last_feat", 8, (2.0, 1.0), norm="LN")
    found = []
    vit.blocks[1].register_forward_hook(lambda module, args, output: found.append(output))
    with FeatureTaps(model, ["backbone.net.blocks.1", "backbone.net.blocks.1.mlp"]) as taps:
        model.backbone(torch.rand(2, 3, 48, 64))
    assert found[0].shape == (2, 3, 4, 32)
    assert torch.equal(taps["backbone.net.blocks.1"], found[0].movedim(3, 1))
    assert taps["backbone.net.blocks.1.mlp"].shape == (2, 32, 3, 4)
