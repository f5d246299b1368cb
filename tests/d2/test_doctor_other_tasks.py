"""The doctor on a config with Detectron2's own mapper: instances on a few drawn images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from afdcd.cli.doctor import main
from afdcd.d2.config import configure
from afdcd.d2.modeling import build_student

NAME = "doctor_boxes"
STUDENT = {
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "DEVICE": "cpu",
        "MASK_ON": True,
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 50,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 16,
            "WIDTH_PER_GROUP": 4,
            "NORM": "BN",
        },
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 16},
        "ANCHOR_GENERATOR": {"SIZES": [[12], [24], [36], [64], [96]]},
        "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "BATCH_SIZE_PER_IMAGE": 16},
        "ROI_HEADS": {
            "NAME": "StandardROIHeads",
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
            "NUM_CLASSES": 2,
            "BATCH_SIZE_PER_IMAGE": 16,
        },
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 16},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 16},
    },
    "INPUT": {"MAPPER": "detectron2", "MIN_SIZE_TRAIN": [96], "SCALE_CROP": {"SIZE": [128, 128]}},
    "DATASETS": {"TRAIN": [NAME], "TEST": [NAME]},
    "DATALOADER": {"NUM_WORKERS": 0},
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 10},
    "SEED": 1,
}
DISTILLED = {
    "_BASE_": "student.yaml",
    "MODEL": {
        "META_ARCHITECTURE": "Distiller",
        "DISTILLER": {
            "STUDENT": "GeneralizedRCNN",
            "TEACHER": {"CONFIG_FILE": "student.yaml"},
            "LOSSES": {
                "afdcd": {
                    "TAPS": [["backbone.fpn_output3", "backbone.fpn_output3"]],
                    "REDUCTION": "mean",
                    "RECONSTRUCTION_WEIGHT": 1.0,
                    "GROUPS": 4,
                    "POOL": 0,
                }
            },
        },
    },
}


def draw(folder: Path) -> list[dict]:
    """Records of images with one square of each of two classes."""
    records = []
    for index in range(4):
        pixels = np.full((96, 96, 3), 90, np.uint8)
        annotations = []
        for category, (left, shade) in enumerate(((10, 250), (50, 20))):
            top = 10 + 5 * index
            pixels[top : top + 30, left : left + 30] = shade
            box = [left, top, left + 30, top + 30]
            outline = [box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]
            annotations.append(
                {
                    "bbox": box,
                    "bbox_mode": 0,
                    "segmentation": [outline],
                    "category_id": category,
                }
            )
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        size = {"height": 96, "width": 96}
        record = {"file_name": str(path), "image_id": index, "annotations": annotations}
        records.append(record | size)
    return records


@pytest.fixture
def examine(tmp_path, capsys):
    """Run the doctor on distilled.yaml; returns its report. Records may be changed before."""
    records = draw(tmp_path)
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=["bright", "dark"], evaluator_type="coco")
    for name, content in (("student", STUDENT), ("distilled", DISTILLED)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    teacher = build_student(configure(str(tmp_path / "student.yaml"), []))
    torch.save({"model": teacher.state_dict()}, tmp_path / "teacher.pth")

    def call(*words: str) -> dict:
        command = ["--json", "--runtime", "detectron2"]
        command += ["--config-file", str(tmp_path / "distilled.yaml")]
        command += ["OUTPUT_DIR", str(tmp_path / "out")]
        command += ["MODEL.DISTILLER.TEACHER.WEIGHTS", str(tmp_path / "teacher.pth")]
        code = main([*command, *words])
        report = json.loads(capsys.readouterr().out)
        assert code == (0 if report["ok"] else 1)
        return report

    call.records = records
    yield call
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_sound(examine, tmp_path):
    report = examine()
    # An untrained teacher and student: only a weight may be called far off.
    assert {f["kind"] for f in report["fix"]} <= {"loss-weight"}, report["fix"]
    facts = report["facts"]
    assert facts["tap of the student: backbone.fpn_output3"]["channels"] == 16
    assert {"loss_rpn_cls", "loss_mask", "loss_reconstruction"} <= set(facts["losses"])
    norms = facts["gradient norms at the student's taps"]["backbone.fpn_output3"]
    assert norms["loss_reconstruction"] > 0 and norms["loss_contrast"] > 0
    assert facts["time"]["s/step"] > 0
    # Untrained, it finds nothing.
    assert list(facts["teacher"]) == ["AP"] and not (facts["teacher"]["AP"] or 0) > 1
    assert any("is it trained on this data?" in f["text"] for f in report["notes"])
    assert not (tmp_path / "out").exists()


def test_planted_faults(examine, tmp_path):
    def kinds(*words: str) -> dict[str, str]:
        return {f["kind"]: f["text"] for f in examine(*words)["fix"]}

    assert "did you mean doctor_boxes" in kinds("DATASETS.TRAIN", "['doctor_boxe']")["dataset"]
    assert "NUM_CLASSES is 3, but" in kinds("MODEL.ROI_HEADS.NUM_CLASSES", "3")["classes"]
    taps = "[['backbone.fpn_output9','backbone.fpn_output3']]"
    assert "fpn_output9" in kinds("MODEL.DISTILLER.LOSSES.afdcd.TAPS", taps)["tap"]
    Path(examine.records[1]["file_name"]).write_bytes(b"nothing")
    assert "can't be read as an image" in kinds()["file"]
    Image.new("RGB", (40, 30)).save(examine.records[1]["file_name"])
    assert "is 30x40, but doctor_boxes says 96x96" in kinds()["file"]
    examine.records[:] = draw(tmp_path)
    examine.records[2]["annotations"][0]["category_id"] = 7
    assert "categories [7], but doctor_boxes has 2 classes" in kinds()["file"]
    examine.records[:] = []
    assert "doctor_boxes holds no images" in kinds()["dataset"]
    (tmp_path / "teacher.pth").write_bytes(b"PK" * 9)
    assert "teacher.pth can't be read as a checkpoint" in kinds()["weights"]
